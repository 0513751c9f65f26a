package convert

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Years is the range that a date field can hold.
type Years struct{ First, Last int }

// Date reads a date and gives it as YYYY-MM-DD. A year of two digits is the
// latest one that does not lie after years.Last. Where day and month cannot be
// told apart the country decides; without one the date is [Ambiguous].
// Other errors are [Missing], [Impossible], [OutOfRange] and [Unreadable].
func Date(s, country string, years Years) (string, error) {
	s = asciiDigits(Line(s))
	if s == "" {
		return "", Missing
	}
	if head, _, ok := strings.Cut(s, "T"); ok && len(head) == len("2006-01-02") {
		s = head
	}
	year, month, day, err := fields(s, country)
	if err != nil {
		return "", err
	}
	if year == 0 && month == 0 && day == 0 {
		return "", Missing
	}
	if year < 100 {
		year += years.Last / 100 * 100
		if year > years.Last {
			year -= 100
		}
	}
	// time.Date carries 31 February over into March: comparing finds it.
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if t.Day() != day || int(t.Month()) != month {
		return "", Impossible
	}
	if year < years.First || year > years.Last {
		return "", OutOfRange
	}
	return fmt.Sprintf("%04d-%02d-%02d", year, month, day), nil
}

func fields(s, country string) (year, month, day int, err error) {
	if len(s) == 8 && numeric(s) {
		return atoi(s[:4]), atoi(s[4:6]), atoi(s[6:]), nil
	}
	if p := strings.Split(s, "-"); len(p) == 3 && len(p[0]) == 4 && numeric(p...) {
		return atoi(p[0]), atoi(p[1]), atoi(p[2]), nil
	}
	if p := strings.Split(s, "."); len(p) == 3 && numeric(p...) {
		return atoi(p[2]), atoi(p[1]), atoi(p[0]), nil
	}
	if p := strings.Split(s, "/"); len(p) == 3 && numeric(p...) {
		return slashed(p, country)
	}
	if p := strings.Fields(strings.ReplaceAll(s, ".", "")); len(p) == 3 && numeric(p[0], p[2]) {
		month := strings.ToLower(p[1])
		if m := slices.Index(months[:], month[:min(3, len(month))]); m >= 0 {
			return atoi(p[2]), m + 1, atoi(p[0]), nil
		}
	}
	return 0, 0, 0, Unreadable
}

// slashed reads a/b/year, the form in which day and month trade places.
func slashed(p []string, country string) (year, month, day int, err error) {
	a, b, year := atoi(p[0]), atoi(p[1]), atoi(p[2])
	switch {
	case len(p[0]) == 4:
		return a, b, year, nil
	case a > 12 || a == b:
		return year, b, a, nil
	case b > 12 || country == "US":
		return year, a, b, nil
	case country == "":
		return 0, 0, 0, Ambiguous
	}
	return year, b, a, nil
}

// numeric says whether each part is one to eight ASCII digits.
func numeric(parts ...string) bool {
	for _, p := range parts {
		if p == "" || len(p) > 8 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// atoi reads what numeric has checked: it cannot fail.
func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

var months = [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
