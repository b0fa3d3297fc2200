/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/agentd/pbjson.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static json_t *text(const char *s)
{
	json_t *v = json_string(s ? s : "");
	char *copy;

	if (v)
		return v;
	copy = strdup(s);
	for (char *p = copy; p && *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	v = copy ? json_string(copy) : NULL;
	free(copy);
	return v;
}

static json_t *hex(const ProtobufCBinaryData *b)
{
	static const char digits[] = "0123456789abcdef";
	char *s = malloc(2 * b->len + 1);
	json_t *v;

	if (!s)
		return NULL;
	for (size_t i = 0; i < b->len; i++) {
		s[2 * i] = digits[b->data[i] >> 4];
		s[2 * i + 1] = digits[b->data[i] & 15];
	}
	v = json_stringn(s, 2 * b->len);
	free(s);
	return v;
}

/* How much of a value's name is its type's: "OnDegraded", "ON_DEGRADED_REFUSE" -> 12. */
static size_t prefix_len(const char *type, const char *value)
{
	size_t n = 0;

	for (const char *t = type; *t; t++) {
		if (t != type && isupper((unsigned char)*t) && value[n++] != '_')
			return 0;
		if (value[n++] != toupper((unsigned char)*t))
			return 0;
	}
	return value[n] == '_' ? n + 1 : 0;
}

static json_t *enum_name(const ProtobufCEnumDescriptor *d, int value)
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
	char buf[64];
	size_t i;

	if (!v)
		return json_integer(value);
	for (i = 0; v->name[i + prefix_len(d->short_name, v->name)] && i + 1 < sizeof(buf); i++)
		buf[i] = (char)tolower(
			(unsigned char)v->name[i + prefix_len(d->short_name, v->name)]);
	buf[i] = '\0';
	return json_string(buf);
}

static json_t *value_of(const ProtobufCFieldDescriptor *f, const void *p)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return json_integer(*(const int32_t *)p);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)p);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return json_integer((json_int_t) * (const uint64_t *)p);
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real(*(const float *)p);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)p);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)p);
	case PROTOBUF_C_TYPE_ENUM:
		return enum_name(f->descriptor, *(const int *)p);
	case PROTOBUF_C_TYPE_STRING:
		return text(*(char *const *)p);
	case PROTOBUF_C_TYPE_BYTES:
		return hex(p);
	case PROTOBUF_C_TYPE_MESSAGE:
		return pbjson_message(*(const ProtobufCMessage *const *)p);
	}
	return NULL;
}

static size_t element_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	default:
		return 4;
	}
}

static bool present(const ProtobufCFieldDescriptor *f, const char *base)
{
	const void *p = base + f->offset;

	if (f->label == PROTOBUF_C_LABEL_REQUIRED)
		return true;
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)(base + f->quantifier_offset) == f->id;
	if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(const void *const *)p != NULL;
	return *(const protobuf_c_boolean *)(base + f->quantifier_offset);
}

json_t *pbjson_message(const ProtobufCMessage *m)
{
	const char *base = (const char *)m;
	json_t *o = json_object();

	for (unsigned int i = 0; o && i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(const size_t *)(base + f->quantifier_offset);
			const char *items = *(const char *const *)(base + f->offset);
			json_t *list = json_array();

			for (size_t j = 0; j < n; j++)
				json_array_append_new(
					list, value_of(f, items + j * element_size(f->type)));
			json_object_set_new(o, f->name, list);
		} else if (present(f, base)) {
			json_object_set_new(o, f->name, value_of(f, base + f->offset));
		}
	}
	return o;
}
