/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/cli/yaml.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#define FILE_MAX   (4u << 20)
#define DEPTH_MAX  32
#define VALUES_MAX 100000

struct conversion {
	yaml_document_t *doc;
	struct err *e;
	unsigned int values;
};

static json_t *convert(struct conversion *c, yaml_node_t *n, unsigned int depth);

static json_t *complain(struct conversion *c, const yaml_node_t *n, const char *what)
{
	err_set(c->e, -EINVAL, "file", "", "line %zu: %s", n->start_mark.line + 1, what);
	return NULL;
}

static bool is_integer(const char *s)
{
	size_t digits;

	if (*s == '-')
		s++;
	digits = strspn(s, "0123456789");
	/* "007" is a text: nobody means a number by it */
	return digits && digits < 19 && !s[digits] && (s[0] != '0' || digits == 1);
}

static json_t *scalar(struct conversion *c, const yaml_node_t *n)
{
	const char *s = (const char *)n->data.scalar.value;
	size_t len = n->data.scalar.length;
	json_t *v;

	if (n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		if (!len || !strcmp(s, "~") || !strcasecmp(s, "null"))
			return json_null();
		if (!strcasecmp(s, "true") || !strcasecmp(s, "false"))
			return json_boolean(!strcasecmp(s, "true"));
		if (is_integer(s))
			return json_integer(strtoll(s, NULL, 10));
	}
	v = json_stringn(s, len);
	return v ? v : complain(c, n, "a text that is not UTF-8");
}

static json_t *sequence(struct conversion *c, const yaml_node_t *n, unsigned int depth)
{
	json_t *list = json_array();

	for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top;
		i++) {
		json_t *v = convert(c, yaml_document_get_node(c->doc, *i), depth + 1);

		if (!v || json_array_append_new(list, v)) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *mapping(struct conversion *c, const yaml_node_t *n, unsigned int depth)
{
	json_t *o = json_object();

	for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
		p++) {
		yaml_node_t *k = yaml_document_get_node(c->doc, p->key);
		const char *key = k && k->type == YAML_SCALAR_NODE
					  ? (const char *)k->data.scalar.value
					  : NULL;
		json_t *v = NULL;

		if (!key)
			complain(c, n, "a key that is not a text");
		else if (json_object_get(o, key))
			complain(c, k, "a key that was there already");
		else
			v = convert(c, yaml_document_get_node(c->doc, p->value), depth + 1);
		if (!v || json_object_set_new(o, key, v)) {
			json_decref(o);
			return c->e && c->e->code ? NULL
						  : complain(c, n, "a key that is not UTF-8");
		}
	}
	return o;
}

static json_t *convert(struct conversion *c, yaml_node_t *n, unsigned int depth)
{
	if (!n) {
		err_set(c->e, -EINVAL, "file", "", "a value is missing");
		return NULL;
	}
	/* aliases may repeat or even contain themselves: both limits hold for them too */
	if (depth > DEPTH_MAX)
		return complain(c, n, "nested too deep");
	if (++c->values > VALUES_MAX)
		return complain(c, n, "too many values");
	switch (n->type) {
	case YAML_SCALAR_NODE:
		return scalar(c, n);
	case YAML_SEQUENCE_NODE:
		return sequence(c, n, depth);
	case YAML_MAPPING_NODE:
		return mapping(c, n, depth);
	default:
		return complain(c, n, "something that is neither text, list nor mapping");
	}
}

static bool nothing_follows(yaml_parser_t *p, struct err *e)
{
	yaml_document_t more;
	bool empty;

	if (!yaml_parser_load(p, &more)) {
		err_set(e, -EINVAL, "file", "", "line %zu: %s", p->problem_mark.line + 1,
			p->problem ? p->problem : "not YAML");
		return false;
	}
	empty = !yaml_document_get_root_node(&more);
	yaml_document_delete(&more);
	if (!empty)
		err_set(e, -EINVAL, "file", "", "more than one document");
	return empty;
}

int yaml_parse(const char *text, size_t len, json_t **out, struct err *e)
{
	struct err own = {0};
	yaml_document_t doc;
	struct conversion c = {&doc, &own, 0};
	yaml_parser_t p;
	json_t *o = NULL;

	if (!yaml_parser_initialize(&p))
		return err_set(e, -ENOMEM, "file", "", "out of memory");
	yaml_parser_set_input_string(&p, (const unsigned char *)text, len);
	if (!yaml_parser_load(&p, &doc)) {
		err_set(e, -EINVAL, "file", "", "line %zu: %s", p.problem_mark.line + 1,
			p.problem ? p.problem : "not YAML");
		yaml_parser_delete(&p);
		return -EINVAL;
	}
	if (yaml_document_get_root_node(&doc))
		o = convert(&c, yaml_document_get_root_node(&doc), 0);
	else
		err_set(&own, -EINVAL, "file", "", "it is empty");
	yaml_document_delete(&doc);
	if (o && !nothing_follows(&p, &own)) {
		json_decref(o);
		o = NULL;
	}
	yaml_parser_delete(&p);
	if (!o) {
		if (e)
			*e = own;
		return -EINVAL;
	}
	*out = o;
	return 0;
}

int yaml_load(const char *path, json_t **out, struct err *e)
{
	bool from_stdin = !strcmp(path, "-");
	FILE *f = from_stdin ? stdin : fopen(path, "re");
	autofree char *text = malloc(FILE_MAX + 1);
	char object[96];
	size_t len;
	int rc;

	snprintf(object, sizeof(object), "file %.80s", path);
	if (!f)
		return err_set(e, -errno, object, "", "%s", strerror(errno));
	len = text ? fread(text, 1, FILE_MAX + 1, f) : 0;
	if (!text)
		rc = err_set(e, -ENOMEM, object, "", "out of memory");
	else if (ferror(f))
		rc = err_set(e, -EIO, object, "", "cannot be read");
	else if (len > FILE_MAX)
		rc = err_set(e, -E2BIG, object, "", "too large; allowed: %u bytes", FILE_MAX);
	else
		rc = yaml_parse(text, len, out, e);
	if (rc == -EINVAL && e)
		snprintf(e->object, sizeof(e->object), "%s", object);
	if (!from_stdin)
		fclose(f);
	return rc;
}
