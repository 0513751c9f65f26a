package source

import (
	"fmt"
	"slices"
)

// A locale is where a customer lives, and how people write there.
type locale struct {
	country  string
	currency string
	weight   int      // of a hundred customers
	latin    []string // ASCII words for e-mail addresses, one per family name
	given    []string
	family   []string
	last     bool // the family name stands last
	joined   bool // no space between the names
	streets  []string
	cities   []string // with a postal code, as it is written there
	order    string   // of street %[1]s, number %[2]d and city %[3]s
	phone    string   // national, with the subscriber's part, below 1000: few of these are in use
}

// locales lists all of them. Their order is part of what a seed means.
func locales() []locale {
	return slices.Concat(largeMarkets(), restOfEurope(), restOfTheWorld())
}

func largeMarkets() []locale {
	return []locale{
		{
			country: "GB", currency: "GBP", weight: 16, last: true,
			given: []string{"Olivia", "George", "Amelia", "Harry", "Zoë", "Siân"}, family: []string{"Smith", "O'Brien", "Taylor-Jones", "MacLeod", "Okafor", "Patel"},
			latin:   []string{"smith", "obrien", "taylorjones", "macleod", "okafor", "patel"},
			streets: []string{"High Street", "Church Lane", "Mill Road"}, cities: []string{"London\nSW1A 1AA", "Leeds\nLS1 4DY", "Cardiff\nCF10 1EP"},
			order: "%[2]d %[1]s\n%[3]s", phone: "020 7946 %04d",
		},
		{
			country: "US", currency: "USD", weight: 16, last: true,
			given: []string{"Emma", "Liam", "José", "Mary Ann", "Tyrone", "Renée"}, family: []string{"Johnson", "Garcia", "Nguyen", "Williams", "D'Angelo", "Washington"},
			latin:   []string{"johnson", "garcia", "nguyen", "williams", "dangelo", "washington"},
			streets: []string{"Main St", "Oak Ave", "2nd St"}, cities: []string{"Springfield, IL 62704", "Portland, OR 97201", "Austin, TX 78701-1234"},
			order: "%[2]d %[1]s\n%[3]s", phone: "(212) 555-%04d",
		},
		{
			country: "DE", currency: "EUR", weight: 12, last: true,
			given: []string{"Jürgen", "Käthe", "Björn", "Anna", "Günther", "Sören"}, family: []string{"Müller", "Weiß", "Schäfer", "von der Heide", "Öztürk", "Groß"},
			latin:   []string{"mueller", "weiss", "schaefer", "vonderheide", "oeztuerk", "gross"},
			streets: []string{"Hauptstraße", "Am Mühlbach", "Königsallee"}, cities: []string{"10115 Berlin", "80331 München", "50667 Köln"},
			order: "%[1]s %[2]d\n%[3]s", phone: "030 23125 %03d",
		},
		{
			country: "FR", currency: "EUR", weight: 8, last: true,
			given: []string{"Chloé", "François", "Hélène", "Loïc"}, family: []string{"Lefèvre", "de la Fontaine", "Noël", "Dupont"},
			latin:   []string{"lefevre", "delafontaine", "noel", "dupont"},
			streets: []string{"rue de l'Église", "avenue Foch"}, cities: []string{"75001 Paris", "69002 Lyon"},
			order: "%[2]d %[1]s\n%[3]s", phone: "01 99 00 %04d",
		},
		{
			country: "ES", currency: "EUR", weight: 6, last: true,
			given: []string{"Íñigo", "María", "José Luis", "Begoña"}, family: []string{"García Márquez", "Núñez Peña", "Ibáñez Gil"},
			latin:   []string{"garcia", "nunez", "ibanez"},
			streets: []string{"Calle Mayor", "Paseo de Gracia"}, cities: []string{"28013 Madrid", "08007 Barcelona"},
			order: "%[1]s %[2]d\n%[3]s", phone: "91 000 %04d",
		},
	}
}

func restOfEurope() []locale {
	return []locale{
		{
			country: "NL", currency: "EUR", weight: 3, last: true,
			given: []string{"Daan", "Zoë"}, family: []string{"van den Berg", "de Vries", "ten Hove"}, latin: []string{"vandenberg", "devries", "tenhove"},
			streets: []string{"Dorpsstraat"}, cities: []string{"1012 AB Amsterdam"}, order: "%[1]s %[2]d\n%[3]s", phone: "020 000 %04d",
		},
		{
			country: "PL", currency: "PLN", weight: 4, last: true,
			given: []string{"Łukasz", "Żaneta", "Michał"}, family: []string{"Wiśniewski", "Dąbrowska", "Wójcik"}, latin: []string{"wisniewski", "dabrowska", "wojcik"},
			streets: []string{"ul. Długa", "ul. Święty Marcin"}, cities: []string{"00-238 Warszawa", "61-808 Poznań"}, order: "%[1]s %[2]d\n%[3]s", phone: "22 000 %04d",
		},
		{
			country: "TR", currency: "TRY", weight: 3, last: true,
			given: []string{"İbrahim", "Çağla", "Işıl"}, family: []string{"Yıldız", "Şahin", "Öğüt"}, latin: []string{"yildiz", "sahin", "ogut"},
			streets: []string{"İstiklal Caddesi"}, cities: []string{"34430 İstanbul"}, order: "%[1]s %[2]d\n%[3]s", phone: "0212 000 %04d",
		},
		{
			country: "HU", currency: "EUR", weight: 2,
			given: []string{"László", "Erzsébet"}, family: []string{"Szőke", "Kovács"}, latin: []string{"szoke", "kovacs"},
			streets: []string{"Váci utca"}, cities: []string{"1056 Budapest"}, order: "%[3]s\n%[1]s %[2]d", phone: "01 000 %04d",
		},
		{
			country: "GR", currency: "EUR", weight: 3, last: true,
			given: []string{"Γιώργος", "Ελένη"}, family: []string{"Παπαδόπουλος", "Νικολάου"}, latin: []string{"papadopoulos", "nikolaou"},
			streets: []string{"Οδός Ερμού"}, cities: []string{"105 63 Αθήνα"}, order: "%[1]s %[2]d\n%[3]s", phone: "210 000 %04d",
		},
		{
			country: "RU", currency: "EUR", weight: 3, last: true,
			given: []string{"Фёдор", "Наталья"}, family: []string{"Йорданов", "Щербакова"}, latin: []string{"yordanov", "shcherbakova"},
			streets: []string{"улица Ленина"}, cities: []string{"101000 Москва"}, order: "%[1]s %[2]d\n%[3]s", phone: "495 000 %04d",
		},
	}
}

func restOfTheWorld() []locale {
	return []locale{
		{
			country: "IL", currency: "ILS", weight: 3, last: true,
			given: []string{"דוד", "רבקה"}, family: []string{"כהן", "בן-דוד"}, latin: []string{"cohen", "bendavid"},
			streets: []string{"רחוב הרצל"}, cities: []string{"6578101 תל אביב"}, order: "%[1]s %[2]d\n%[3]s", phone: "03 000 %04d",
		},
		{
			country: "AE", currency: "AED", weight: 3, last: true,
			given: []string{"محمد", "فاطمة"}, family: []string{"المنصوري", "بن سعيد"}, latin: []string{"almansoori", "binsaeed"},
			streets: []string{"شارع الشيخ زايد"}, cities: []string{"دبي"}, order: "%[1]s %[2]d\n%[3]s", phone: "04 000 %04d",
		},
		{
			country: "IN", currency: "INR", weight: 4, last: true,
			given: []string{"प्रिया", "अर्जुन"}, family: []string{"शर्मा", "श्रीवास्तव"}, latin: []string{"sharma", "srivastava"},
			streets: []string{"महात्मा गांधी मार्ग"}, cities: []string{"नई दिल्ली 110001"}, order: "%[2]d %[1]s\n%[3]s", phone: "011 0000 %04d",
		},
		{
			country: "TH", currency: "THB", weight: 2, last: true,
			given: []string{"สมชาย", "กัญญา"}, family: []string{"ศรีสุข", "ใจดี"}, latin: []string{"srisuk", "jaidee"},
			streets: []string{"ถนนสุขุมวิท"}, cities: []string{"กรุงเทพมหานคร 10110"}, order: "%[2]d %[1]s\n%[3]s", phone: "02 000 %04d",
		},
		{
			country: "CN", currency: "CNY", weight: 4, joined: true,
			given: []string{"小明", "丽", "建国"}, family: []string{"王", "欧阳", "李"}, latin: []string{"wang", "ouyang", "li"},
			streets: []string{"长安街"}, cities: []string{"100006 北京市"}, order: "%[3]s\n%[1]s%[2]d号", phone: "010 0000 %04d",
		},
		{
			country: "JP", currency: "JPY", weight: 4,
			given: []string{"太郎", "さくら", "翔"}, family: []string{"山田", "𠮷野", "髙橋"}, latin: []string{"yamada", "yoshino", "takahashi"},
			streets: []string{"千代田"}, cities: []string{"〒100-0001 東京都"}, order: "%[1]s%[2]d\n%[3]s", phone: "03 0000 %04d",
		},
		{
			country: "KR", currency: "KRW", weight: 3, joined: true,
			given: []string{"민준", "서연"}, family: []string{"김", "이", "남궁"}, latin: []string{"kim", "lee", "namgung"},
			streets: []string{"세종대로"}, cities: []string{"04524 서울"}, order: "%[1]s %[2]d\n%[3]s", phone: "02 000 %04d",
		},
		{
			country: "VN", currency: "VND", weight: 1,
			given: []string{"Văn Hùng", "Thị Hoa"}, family: []string{"Nguyễn", "Trần"}, latin: []string{"nguyen", "tran"},
			streets: []string{"Lê Lợi"}, cities: []string{"700000 Hồ Chí Minh"}, order: "%[2]d %[1]s\n%[3]s", phone: "028 000 %04d",
		},
	}
}

// name writes a person's full name as it is written there.
func (l locale) name(given, family int) string {
	space := " "
	if l.joined {
		space = ""
	}
	if l.last {
		return l.given[given] + space + l.family[family]
	}
	return l.family[family] + space + l.given[given]
}

func (l locale) address(r *random) string {
	return fmt.Sprintf(l.order, pick(r, l.streets), 1+r.below(199), pick(r, l.cities))
}
