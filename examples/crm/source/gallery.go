package source

// A Case is one awkward row and what is awkward about it.
type Case struct {
	Name string
	Row  []any // without the id, which is the place in its list, from 1
}

// Cases are the awkward rows of each table.
type Cases struct{ Customers, Orders, Invoices []Case }

// Gallery gives the rows that every database begins with, whatever its seed:
// one of each difficulty that the generator scatters over the rest.
func Gallery() Cases {
	var c Cases
	c.Customers = galleryCustomers()
	c.Orders = galleryOrders(ids(c.Customers))
	c.Invoices = galleryInvoices(ids(c.Orders))
	return c
}

// ids finds a case's id by its name, so that orders can refer to customers.
// A name that is not there is a mistake in this file.
func ids(cases []Case) func(name string) int64 {
	byName := map[string]int64{}
	for i, c := range cases {
		byName[c.Name] = int64(i) + 1
	}
	return func(name string) int64 {
		id, ok := byName[name]
		if !ok {
			panic("source: the gallery has no case " + name)
		}
		return id
	}
}

func galleryCustomers() []Case {
	c := func(name string, full, email, phone, birth, address, country, status any) Case {
		return Case{name, []any{full, email, phone, birth, address, country, status}}
	}
	const street = "Hauptstraße 1\n10115 Berlin"
	return []Case{
		c("plain", "Anna Beispiel", "anna@example.com", "030 23125 001", "1980-05-17", street, "DE", "active"),
		c("duplicate", "ANNA BEISPIEL   ", " Anna@Example.COM", nil, nil, nil, "DE", "active"),
		c("duplicate with zero-width space", "Anna Bei\u200bspiel", "anna@example.com", nil, nil, nil, "DE", "active"),
		c("gaps", "Gregor Lücke", "gregor@example.com", nil, nil, nil, "DE", "active"),
		c("fills gaps", "Lücke, Gregor", "GREGOR@example.com", "030 23125 002", "02.03.1971", street, "DE", "active"),
		c("combining characters", "Zoe\u0308 Scha\u0308fer", "zoe@example.com", nil, "1990-01-02", street, "DE", "active"),
		c("Arabic with override", "\u202bمحمد المنصوري\u202c", "m.almansoori@example.com", "٠٤ ٠٠٠ ٠٠٠١", nil, "شارع الشيخ زايد 1\nدبي", "AE", "active"),
		c("Hebrew", "רבקה בן-דוד", "rivka@example.com", nil, nil, nil, "IL", "active"),
		c("Devanagari", "अर्जुन श्रीवास्तव", "arjun@example.com", nil, nil, "12 महात्मा गांधी मार्ग\nनई दिल्ली 110001", "IN", "active"),
		c("Windows-1252 bytes", "J\xfcrgen M\xfcller", "juergen@example.com", nil, nil, "K\xf6nigsallee 2\n40212 D\xfcsseldorf", "DE", "active"),
		c("comma and title", "van der Berg, Dr. Jan", "jan@example.com", nil, nil, "Dorpsstraat 3\n1012 AB Amsterdam", "NL", "active"),
		c("particle", "Maria de la Cruz", "maria@example.com", nil, nil, nil, "US", "active"),
		c("two surnames", "José Luis Núñez Peña", "jose@example.com", nil, nil, nil, "ES", "active"),
		c("single name", "Suharto", "suharto@example.com", nil, nil, nil, "NL", "active"),
		c("Chinese double surname", "欧阳小明", "ouyang@example.com", nil, nil, nil, "CN", "active"),
		c("Japanese without space", "山田太郎", "yamada@example.com", nil, nil, "千代田1\n〒100-0001 東京都", "JP", "active"),
		c("newline and quotes", "Robert \"Bob\"\r\nO'Neil", "bob@example.com", nil, nil, "1 High Street, London, SW1A 1AA", "uk", "active"),
		c("SQL in the address", "Bobby Tables", "bobby@example.com", nil, nil, "'); DROP TABLE customer;--", "US", "active"),
		c("name null", nil, "nobody@example.com", nil, nil, nil, "DE", "active"),
		c("name of blanks", " \u00a0\u200b ", "blank@example.com", nil, nil, nil, "DE", "active"),
		c("e-mail unreadable", "Eva Ohnemail", "n/a", "+49 (0)30 23125-003", nil, nil, "DE", "active"),
		c("no contact", "Karl Kontaktlos", "none", "call the wife", nil, nil, "DE", "active"),
		c("phone with extension", "Petra Telefon", "petra@example.com", "0049 30/23125-004 ext. 12", nil, nil, nil, "active"),
		c("birth zero", "Zoltan Null", "zoltan@example.com", nil, "0000-00-00", nil, "DE", "active"),
		c("birth 31 February", "Febe Impossible", "febe@example.com", nil, "1980-02-31", nil, "DE", "active"),
		c("birth month first", "Uma Amerika", "uma@example.com", nil, "04/05/1980", nil, "U.S.A.", "active"),
		c("birth day first", "Ede Europa", "ede@example.com", nil, "04/05/1980", nil, "GB", "active"),
		c("birth ambiguous", "Amy Ambig", "amy@example.com", nil, "04/05/1980", nil, nil, "active"),
		c("birth clear without country", "Clara Klar", "clara@example.com", nil, "25/12/1980", nil, nil, "active"),
		c("birth year of two digits", "Zwo Ziffern", "zwo@example.com", nil, "17.05.80", nil, "DE", "active"),
		c("birth too early", "Methusalem Alt", "alt@example.com", nil, "1880-01-01", nil, "DE", "active"),
		c("birth unreadable", "Ursula Unlesbar", "ursula@example.com", nil, "spring 1980", nil, "DE", "active"),
		c("inactive", "Ina Ruht", "ina@example.com", nil, nil, nil, "DE", "inactive"),
		c("closed", "Clemens Zu", "clemens@example.com", nil, nil, nil, "DE", "Closed "),
		c("erased", "Erased", nil, nil, nil, nil, nil, "erased"),
		c("test by e-mail", "Quality Assurance", "qa@qa.test", nil, nil, nil, "DE", "active"),
		c("test by name", "TEST Kunde", "tk@example.com", nil, nil, nil, "DE", "active"),
		c("status null", "Stefan Ohne", "stefan@example.com", nil, nil, nil, "DE", nil),
		c("status unknown", "Zora Zombie", "zora@example.com", nil, nil, nil, "DE", "zombie"),
		c("rejected original", "Dora Doppelt", "dora@example.com", nil, "1990-02-30", nil, "DE", "active"),
		c("duplicate of rejected", "Dora Doppelt", "dora@example.com", nil, "1990-02-03", nil, "DE", "active"),
	}
}

func galleryOrders(customer func(name string) int64) []Case {
	plain := customer("plain")
	c := func(name string, no any, owner any, ordered, country, currency, total, note any) Case {
		return Case{name, []any{no, owner, ordered, country, currency, total, note}}
	}
	return []Case{
		c("plain", "A-1", plain, "2020-03-04", "DE", "EUR", "1234.56", nil),
		c("decimal comma", "A-2", plain, "2020-03-04", "DE", "EUR", "1234,56", nil),
		c("grouped with points", "A-3", plain, "2020-03-04", "DE", "eur ", "1.234.567,89", nil),
		c("grouped with commas", "A-4", plain, "2020-03-04", "US", "USD", "$1,234.50", nil),
		c("grouped with spaces", "A-5", plain, "2020-03-04", "FR", "EUR", "1\u202f234,50 EUR", nil),
		c("amount ambiguous", "A-6", plain, "2020-03-04", "DE", "EUR", "1,234", nil),
		c("amount in brackets", "A-7", plain, "2020-03-04", "DE", "EUR", "(12.50)", nil),
		c("minus behind", "A-8", plain, "2020-03-04", "DE", "EUR", "12,50-", nil),
		c("yen", "A-9", plain, "2020-03-04", "JP", "JPY", "¥1,234", nil),
		c("three decimals", "A-10", plain, "2020-03-04", "AE", "KWD", "1234.567", nil),
		c("Arabic digits", "A-11", plain, "2020-03-04", "AE", "AED", "١٬٢٣٤٫٥٠", nil),
		c("amount null", "A-12", plain, "2020-03-04", "DE", "EUR", nil, nil),
		c("amount unreadable", "A-13", plain, "2020-03-04", "DE", "EUR", "12.345.67", nil),
		c("amount too large", "A-14", plain, "2020-03-04", "DE", "EUR", "99999999999.00", nil),
		c("orphan", "A-15", int64(10_000_000), "2020-03-04", "DE", "EUR", "1.00", nil),
		c("customer null", "A-16", nil, "2020-03-04", "DE", "EUR", "1.00", nil),
		c("customer rejected", "A-17", customer("name null"), "2020-03-04", "DE", "EUR", "1.00", nil),
		c("customer filtered", "A-18", customer("inactive"), "2020-03-04", "DE", "EUR", "1.00", nil),
		c("customer merged", "A-19", customer("duplicate"), "2020-03-04", "DE", "EUR", "1.00", nil),
		c("currency null", "A-20", plain, "2020-03-04", "DE", nil, "1.00", nil),
		c("currency unknown", "A-21", plain, "2020-03-04", "DE", "DM", "1.00", nil),
		c("date zero", "A-22", plain, "0000-00-00", "DE", "EUR", "1.00", nil),
		c("date 31 February", "A-23", plain, "31.02.2020", "DE", "EUR", "1.00", nil),
		c("date ambiguous", "A-24", plain, "03/04/20", nil, "EUR", "1.00", nil),
		c("date in the future", "A-25", plain, "2099-01-01", "DE", "EUR", "1.00", nil),
		c("date of two digits", "A-26", plain, "03/04/20", "US", "USD", "1.00", nil),
		c("number null", nil, plain, "2020-03-04", "DE", "EUR", "1.00", nil),
		c("imported twice", "A-1", plain, "2020-03-04", "DE", "EUR", "1234.56", nil),
		c("number used twice", "A-1", plain, "2020-03-05", "DE", "EUR", "99.00", nil),
		c("note with newline", "A-30", plain, "2020-03-04", "DE", "EUR", "1.00", "said \"now\"\r\nwait; \U0001F381"),
	}
}

func galleryInvoices(order func(name string) int64) []Case {
	plain := order("plain")
	c := func(name string, no any, owner any, kind, issued, due, net, tax, total any) Case {
		return Case{name, []any{no, owner, kind, issued, due, "DE", "EUR", net, tax, total}}
	}
	return []Case{
		c("plain", "B-1", plain, "INV", "2020-03-05", "2020-04-05", "100.00", "19.00", "119.00"),
		c("credit note", "B-2", plain, "CN", "2020-03-05", nil, "-100,00", "-19,00", "-119,00"),
		c("invoice negative", "B-3", plain, "INV", "2020-03-05", nil, "-100.00", "-19.00", "-119.00"),
		c("credit note positive", "B-4", plain, "CN", "2020-03-05", nil, "100.00", "19.00", "119.00"),
		c("total wrong", "B-5", plain, "INV", "2020-03-05", nil, "100.00", "19.00", "120.00"),
		c("tax null", "B-6", plain, "INV", "2020-03-05", nil, "100.00", nil, "100.00"),
		c("due before issued", "B-7", plain, "INV", "2020-03-05", "2020-02-05", "100.00", "19.00", "119.00"),
		c("due zero", "B-8", plain, "INV", "05.03.2020", "0000-00-00", "100.00", "19.00", "119.00"),
		c("orphan", "B-9", int64(20_000_000), "INV", "2020-03-05", nil, "100.00", "19.00", "119.00"),
		c("order rejected", "B-10", order("orphan"), "INV", "2020-03-05", nil, "100.00", "19.00", "119.00"),
		c("order filtered", "B-11", order("customer filtered"), "INV", "2020-03-05", nil, "100.00", "19.00", "119.00"),
		c("order merged", "B-12", order("imported twice"), "INV", "2020-03-05", nil, "100.00", "19.00", "119.00"),
		c("kind unknown", "B-13", plain, "PROFORMA", "2020-03-05", nil, "100.00", "19.00", "119.00"),
		c("issued 31 February", "B-14", plain, "INV", "2020-02-31", nil, "100.00", "19.00", "119.00"),
		c("imported twice", "B-1", plain, "INV", "2020-03-05", "2020-04-05", "100.00", "19.00", "119.00"),
		c("number used twice", "B-1", plain, "INV", "2020-03-06", nil, "1.00", "0.19", "1.19"),
	}
}
