package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/docs/api"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// A description is docs/api/openapi.yaml as an oracle: it says whether a client may expect an answer. Every answer that
// a test gets goes through it.
type description struct {
	doc      map[string]any
	paths    *http.ServeMux // the described operations
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by their place; guarded by mu, as all below
	seen    map[string]bool               // "METHOD PATH STATUS" and "STATUS PROBLEM" that were answered
}

// described is the description that we serve.
var described = sync.OnceValue(func() *description {
	d, err := newDescription(api.OpenAPI)
	if err != nil {
		panic(err)
	}
	return d
})

// everyPath stands for the operation that an answer is of if it is none of a path.
const everyPath = "*"

func newDescription(text []byte) (*description, error) {
	d := &description{
		paths: http.NewServeMux(), compiler: jsonschema.NewCompiler(),
		schemas: make(map[string]*jsonschema.Schema), seen: make(map[string]bool),
	}
	var raw any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	asJSON, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, err
	}
	closeObjects(doc)
	d.doc = doc.(map[string]any)
	if err := d.compiler.AddResource("openapi.json", doc); err != nil {
		return nil, err
	}
	for _, name := range d.operations() {
		d.paths.Handle(d.muxPattern(name), http.NotFoundHandler())
	}
	return d, nil
}

// closeObjects makes the schemas say that there is nothing but what they describe. For clients that is left open: later
// servers may say more.
func closeObjects(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			closeObjects(item)
		}
	case map[string]any:
		if _, ok := v["additionalProperties"]; !ok && v["type"] == "object" && v["properties"] != nil {
			v["additionalProperties"] = false
		}
		for key, item := range v {
			if key != "example" && key != "examples" {
				closeObjects(item)
			}
		}
	}
}

// A node is something in the document, and where it is: a JSON pointer.
type node struct {
	at    string
	value any
}

// get goes to a member, and on to where it refers to. Its value is nil if there is none.
func (d *description) get(n node, keys ...string) node {
	for _, key := range keys {
		members, _ := n.value.(map[string]any)
		n = node{n.at + "/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "*", "%2A").Replace(key), members[key]}
		if m, ok := n.value.(map[string]any); ok {
			if ref, ok := m["$ref"].(string); ok {
				n = d.get(node{"", d.doc}, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			}
		}
	}
	return n
}

// keys gives the members of an object, sorted.
func (n node) keys() []string {
	members, _ := n.value.(map[string]any)
	return slices.Sorted(maps.Keys(members))
}

func (n node) text() string {
	text, _ := n.value.(string)
	return text
}

// operations gives the described operations, as "METHOD PATH".
func (d *description) operations() (names []string) {
	paths := d.get(node{"", d.doc}, "paths")
	for _, path := range paths.keys() {
		for _, method := range d.get(paths, path).keys() {
			if method != "parameters" && method != "servers" {
				names = append(names, strings.ToUpper(method)+" "+path)
			}
		}
	}
	return names
}

// operation finds an operation by its name; everyPath is one, too.
func (d *description) operation(name string) node {
	if name == everyPath {
		return d.get(node{"", d.doc}, "x-every-path")
	}
	method, path, _ := strings.Cut(name, " ")
	return d.get(node{"", d.doc}, "paths", path, strings.ToLower(method))
}

// parameters gives the parameters of an operation that are in "path", "query" or "header", by name.
func (d *description) parameters(name, in string) map[string]node {
	_, path, _ := strings.Cut(name, " ")
	found := make(map[string]node)
	for _, of := range []node{d.get(node{"", d.doc}, "paths", path), d.operation(name)} {
		list, _ := d.get(of, "parameters").value.([]any)
		asMembers := make(map[string]any)
		for i, p := range list {
			asMembers[strconv.Itoa(i)] = p
		}
		for i := range list {
			p := d.get(node{of.at + "/parameters", asMembers}, strconv.Itoa(i))
			if d.get(p, "in").text() == in {
				found[d.get(p, "name").text()] = p
			}
		}
	}
	return found
}

// adminListener stands before the paths of what the admin listener serves.
const adminListener = "/admin.addr"

// muxPattern is the route of an operation. A parameter whose example has a slash takes the rest of the path.
func (d *description) muxPattern(name string) string {
	method, path, _ := strings.Cut(name, " ")
	if d.get(node{"", d.doc}, "paths", path, "servers").value != nil {
		return method + " " + adminListener + path
	}
	for param, p := range d.parameters(name, "path") {
		if strings.Contains(fmt.Sprint(d.get(p, "example").value), "/") {
			name = strings.Replace(name, "{"+param+"}", "{"+param+"...}", 1)
		}
	}
	return name
}

// match finds the operation of a request, and the values of its parameters in the path.
func (d *description) match(method, path string) (name string, values map[string]string) {
	r := httptest.NewRequest(method, "http://log"+path, nil)
	d.paths.ServeHTTP(httptest.NewRecorder(), r) // sets the pattern and its values
	if r.Pattern == "" {
		return everyPath, nil
	}
	name = strings.Replace(strings.Replace(r.Pattern, "...}", "}", 1), adminListener, "", 1)
	values = make(map[string]string)
	for param := range d.parameters(name, "path") {
		values[param] = r.PathValue(param)
	}
	return name, values
}

// withoutLog gives the path below the prefix of a log.
func withoutLog(path string) string {
	if rest, ok := strings.CutPrefix(path, "/logs/"); ok {
		if _, below, ok := strings.Cut(rest, "/"); ok {
			return "/" + below
		}
	}
	return path
}

// beforeHandlers are the statuses that any path may be answered with, whatever its handler does.
var beforeHandlers = []int{http.StatusTemporaryRedirect, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}

// check holds an answer to the description: status, headers, body.
func (d *description) check(method, target string, a httpAnswer) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	name, _ := d.match(method, withoutLog(u.EscapedPath()))
	status := strconv.Itoa(a.status)
	response := d.get(d.operation(name), "responses", status)
	if response.value == nil && slices.Contains(beforeHandlers, a.status) {
		name = everyPath
		response = d.get(d.operation(name), "responses", status)
	}
	if response.value == nil {
		return fmt.Errorf("%s %s is answered with %s, which %s is not described to answer: %.500s", method, target, status, name, a.body)
	}
	err = errors.Join(d.checkHeaders(response, a.header), d.checkBody(response, method, a))
	if err != nil {
		return fmt.Errorf("%s %s is answered with %s, unlike what is described of %s: %w\n%v %.500s", method, target, status, name, err, a.header, a.body)
	}
	d.note(name+" "+status, a.body)
	return nil
}

// checked fails the test if an answer is not as described.
func (a httpAnswer) checked(method, target string) httpAnswer {
	a.t.Helper()
	if err := described().check(method, target, a); err != nil {
		a.t.Error(err)
	}
	return a
}

// checkingProxy passes requests on to a server, and holds them and their answers to the description.
func checkingProxy(t testing.TB, to string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		must(t, err)
		on, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.RequestURI(), bytes.NewReader(body))
		must(t, err)
		on.Header = r.Header.Clone()
		resp, err := http.DefaultTransport.RoundTrip(on)
		if err != nil {
			panic(http.ErrAbortHandler) // the server is gone: so is the proxy
		}
		defer func() { _ = resp.Body.Close() }() // read to the end
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		a := httpAnswer{t, resp.StatusCode, resp.Header, b}.checked(r.Method, r.URL.RequestURI())
		if err := described().checkRequest(r.Method, r.URL.RequestURI(), r.Header, body); err != nil && a.status < 300 {
			t.Error(err)
		}
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body) // whoever went away does not get it
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func (d *description) note(answer string, body []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[answer] = true
	var p problem
	if json.Unmarshal(body, &p) == nil && p.Status != 0 {
		d.seen[fmt.Sprint(p.Status, " ", p.Type)] = true
	}
}

// transport are the headers of HTTP itself. All others are ours.
var transport = []string{"Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding", "Vary"}

func (d *description) checkHeaders(response node, header http.Header) error {
	var errs []error
	headers := make(map[string]node)
	for _, name := range d.get(response, "headers").keys() {
		h := d.get(response, "headers", name)
		headers[http.CanonicalHeaderKey(name)] = h
		if d.get(h, "required").value == true && header.Get(name) == "" {
			errs = append(errs, fmt.Errorf("header %s is missing", name))
		}
	}
	for name, values := range header {
		h := headers[name]
		switch {
		case slices.Contains(transport, name):
		case h.value == nil:
			errs = append(errs, fmt.Errorf("header %s: %q is not described", name, values))
		case len(values) != 1:
			errs = append(errs, fmt.Errorf("header %s comes %d times", name, len(values)))
		default:
			if err := d.checkText(d.get(h, "schema"), values[0]); err != nil {
				errs = append(errs, fmt.Errorf("header %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (d *description) checkBody(response node, method string, a httpAnswer) error {
	content := d.get(response, "content")
	if method == http.MethodHead || content.value == nil {
		if len(a.body) != 0 {
			return errors.New("there is a body")
		}
		return nil
	}
	media, err := d.media(content, a.header.Get("Content-Type"))
	if err != nil {
		return err
	}
	if err := d.checkContent(media, a.header.Get("Content-Type"), a.body); err != nil {
		return err
	}
	var p problem
	if json.Unmarshal(a.body, &p) == nil && p.Status != 0 && p.Status != a.status {
		return fmt.Errorf("the problem's status is %d", p.Status)
	}
	return nil
}

// media finds what is described of a media type.
func (d *description) media(content node, contentType string) (node, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return node{}, fmt.Errorf("content type %q: %w", contentType, err)
	}
	for _, t := range []string{media, "*/*"} {
		if m := d.get(content, t); m.value != nil {
			return m, nil
		}
	}
	return node{}, fmt.Errorf("content type %q is not described, but %v", contentType, content.keys())
}

// checkContent holds a body to the schema of its media type, if it has one.
func (d *description) checkContent(media node, contentType string, body []byte) error {
	schema := d.get(media, "schema")
	if schema.value == nil {
		return nil
	}
	if !strings.Contains(contentType, "json") {
		return d.validate(schema, string(body))
	}
	texts := [][]byte{body}
	if lines := d.get(schema, "contentSchema"); lines.value != nil {
		schema, texts = lines, bytes.Split(bytes.TrimSuffix(body, newline), newline)
	}
	for _, text := range texts {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		if err := d.validate(schema, v); err != nil {
			return err
		}
	}
	return nil
}

// checkText holds the text of a header or parameter to a schema: of a string, or of a number.
func (d *description) checkText(schema node, text string) error {
	err := d.validate(schema, text)
	if _, notNumber := strconv.ParseFloat(text, 64); err != nil && notNumber == nil {
		err = d.validate(schema, json.Number(text))
	}
	return err
}

// validate holds a value to a schema of the document (JSON Schema 2020-12).
func (d *description) validate(schema node, v any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.schemas[schema.at]
	if s == nil {
		var err error
		if s, err = d.compiler.Compile("openapi.json#" + schema.at); err != nil {
			return err
		}
		d.schemas[schema.at] = s
	}
	return s.Validate(v)
}

// checkRequest holds a request to the description: one that the server took must be as is described.
func (d *description) checkRequest(method, target string, header http.Header, body []byte) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	name, values := d.match(method, withoutLog(u.EscapedPath()))
	var errs []error
	parameter := func(in, key, value string) {
		p, ok := d.parameters(name, in)[key]
		if !ok {
			errs = append(errs, fmt.Errorf("the parameter %s in %s is not described", key, in))
		} else if err := d.checkText(d.get(p, "schema"), value); err != nil {
			errs = append(errs, fmt.Errorf("parameter %s: %w", key, err))
		}
	}
	for key, value := range values {
		parameter("path", key, value)
	}
	for key, all := range u.Query() {
		parameter("query", key, all[0])
	}
	request := d.get(d.operation(name), "requestBody")
	switch {
	case len(body) == 0 && d.get(request, "required").value == true:
		errs = append(errs, errors.New("a body is described as required, and there is none"))
	case len(body) > 0 && request.value == nil:
		errs = append(errs, errors.New("no body is described, and there is one"))
	case len(body) > 0:
		media, err := d.media(d.get(request, "content"), header.Get("Content-Type"))
		if err == nil {
			err = d.checkContent(media, header.Get("Content-Type"), body)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s %s is taken, unlike what is described: %w\n%.500s", method, target, err, body)
	}
	return nil
}
