package convert

import (
	"slices"
	"strings"
	"unicode"
)

// A Name is a full name split in two, with the rule that split it, so that a
// split that turns out wrong can be found again and undone by its rule.
type Name struct {
	Given  string // may be empty
	Family string // never empty
	Rule   string // comma, family-first, surname, two-surnames, particle, last-word or single
}

// SplitName splits a full name. The country decides only where the writing
// does not: whether the family name stands first, and whether it is double.
// The error is [Missing] when nothing is left of the name.
func SplitName(full, country string) (Name, error) {
	full = Line(full)
	if family, given, ok := strings.Cut(full, ","); ok {
		family, given = strings.TrimSpace(family), strings.TrimSpace(given)
		if family != "" && given != "" && !slices.Contains(suffixes[:], key(given)) {
			return Name{Given: strings.Join(bare(strings.Fields(given)), " "), Family: family, Rule: "comma"}, nil
		}
		full = family + " " + given
	}
	words := bare(strings.Fields(full))
	if len(words) == 0 {
		return Name{}, Missing
	}
	if eastAsian(full) {
		return splitEastAsian(words, country), nil
	}
	return splitWords(words, country), nil
}

func splitWords(words []string, country string) Name {
	last := len(words) - 1
	if last == 0 {
		return Name{Family: words[0], Rule: "single"}
	}
	cut, rule := last, "last-word"
	switch {
	case slices.Contains(familyFirst[:], country):
		return Name{Given: strings.Join(words[1:], " "), Family: words[0], Rule: "family-first"}
	case last >= 2 && slices.Contains(twoSurnames[:], country):
		cut, rule = last-1, "two-surnames"
	}
	for i := 1; i < last; i++ {
		if slices.Contains(particles[:], words[i]) {
			cut, rule = min(i, cut), "particle"
			break
		}
	}
	return Name{Given: strings.Join(words[:cut], " "), Family: strings.Join(words[cut:], " "), Rule: rule}
}

// splitEastAsian splits names in Han, Hangul or kana. A Japanese name written
// without a space cannot be split without a dictionary, so it is left whole.
func splitEastAsian(words []string, country string) Name {
	if len(words) > 1 {
		return Name{Given: strings.Join(words[1:], " "), Family: words[0], Rule: "family-first"}
	}
	runes := []rune(words[0])
	size := 1
	if len(runes) > 2 && slices.Contains(compound[:], string(runes[:2])) {
		size = 2
	}
	if country == "JP" || kana(runes) || len(runes) <= size || len(runes) > size+2 {
		return Name{Family: words[0], Rule: "single"}
	}
	return Name{Given: string(runes[size:]), Family: string(runes[:size]), Rule: "surname"}
}

// bare takes forms of address and degrees off both ends, but never all words.
func bare(words []string) []string {
	for len(words) > 1 && slices.Contains(titles[:], key(words[0])) {
		words = words[1:]
	}
	for len(words) > 1 && slices.Contains(suffixes[:], key(words[len(words)-1])) {
		words = words[:len(words)-1]
	}
	return words
}

func key(word string) string { return strings.ToLower(strings.Trim(word, ".")) }

func eastAsian(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsLetter(r) && !unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) && r != 'ー'
	}) && strings.ContainsFunc(s, unicode.IsLetter)
}

func kana(runes []rune) bool {
	return slices.ContainsFunc(runes, func(r rune) bool { return unicode.In(r, unicode.Hiragana, unicode.Katakana) })
}

var (
	titles      = [...]string{"mr", "mrs", "ms", "miss", "dr", "prof", "herr", "frau", "sra", "sr", "mme", "m"}
	suffixes    = [...]string{"jr", "sr", "ii", "iii", "iv", "phd", "md", "esq"}
	particles   = [...]string{"van", "von", "de", "der", "den", "di", "da", "del", "della", "du", "la", "le", "bin", "ibn", "al", "ten", "ter", "zu"}
	compound    = [...]string{"欧阳", "司马", "诸葛", "上官", "司徒", "東方", "남궁", "황보", "선우"}
	familyFirst = [...]string{"HU", "VN"}
	twoSurnames = [...]string{"ES", "MX"}
)
