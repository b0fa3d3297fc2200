/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/agentd/apply.h"

#include "common/base/log.h"
#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Members that are lists or objects of their own, not fields. */
static const char *const node_parts[] = {"flashes", "pool", "queue", "vms", NULL};
static const char *const vm_parts[] = {"devices", "ec", NULL};
static const char *const no_parts[] = {NULL};

/* A copy of in without its parts, with the keys of its owner. */
static json_t *fields_of(
	const json_t *in, const char *const *parts, const char *node, const char *vm)
{
	json_t *o = json_is_object(in) ? json_copy((json_t *)in) : NULL;

	for (; o && *parts; parts++)
		json_object_del(o, *parts);
	if (o && node)
		json_object_set_new(o, "node", json_string(node));
	if (o && vm)
		json_object_set_new(o, "vm", json_string(vm));
	return o;
}

static int put(struct change *c, const struct noun *n, const json_t *in, const char *const *parts,
	const char *node, const char *vm, struct err *e)
{
	json_t *o = fields_of(in, parts, node, vm);
	int rc;

	if (!o)
		return err_set(
			e, -EINVAL, n->name, "", "not an object; allowed: {field: value, ...}");
	rc = change_put(c, n, o, e);
	json_decref(o);
	return rc;
}

/* The list `name` of o, NULL where it is absent. */
static int list_of(
	const json_t *o, const char *name, const char *object, json_t **list, struct err *e)
{
	*list = json_object_get(o, name);
	if (!*list || json_is_null(*list)) {
		*list = NULL;
		return 0;
	}
	if (json_is_array(*list))
		return 0;
	return err_set(e, -EINVAL, object, name, "not a list; allowed: [ ... ]");
}

static int put_list(struct change *c, const struct noun *n, const json_t *owner, const char *name,
	const char *object, const char *node, const char *vm, struct err *e)
{
	json_t *list, *o;
	size_t i;
	int rc = list_of(owner, name, object, &list, e);

	json_array_foreach(list, i, o)
	{
		if (!rc)
			rc = put(c, n, o, no_parts, node, vm, e);
	}
	return rc;
}

static int name_of(const json_t *o, const char *object, const char **name, struct err *e)
{
	*name = json_string_value(json_object_get(o, "name"));
	if (*name)
		return 0;
	return err_set(e, -EINVAL, object, "name", "is needed");
}

static int apply_vm(struct change *c, const char *node, const json_t *vm, struct err *e)
{
	const char *name;
	char object[96];
	json_t *rows;
	int rc = name_of(vm, "vm", &name, e);

	if (rc < 0)
		return rc;
	rc = put(c, &noun_vm, vm, vm_parts, node, NULL, e);
	snprintf(object, sizeof(object), "vm %.80s", name);
	if (!rc)
		rc = put_list(c, &noun_device, vm, "devices", object, node, name, e);
	if (!rc)
		rc = list_of(vm, "ec", object, &rows, e);
	if (!rc && rows)
		rc = change_rows(c, node, name, rows, e);
	return rc;
}

static int apply_node(struct change *c, const json_t *o, struct err *e)
{
	const char *node;
	char object[96];
	json_t *vms, *vm;
	size_t i;
	int rc = name_of(o, "node", &node, e);

	if (!rc)
		rc = put(c, &noun_node, o, node_parts, NULL, NULL, e);
	if (rc < 0)
		return rc;
	snprintf(object, sizeof(object), "node %.80s", node);
	rc = put_list(c, &noun_flash, o, "flashes", object, node, NULL, e);
	if (!rc && json_object_get(o, "pool"))
		rc = put(c, &noun_pool, json_object_get(o, "pool"), no_parts, node, NULL, e);
	if (!rc && json_object_get(o, "queue"))
		rc = put(c, &noun_queue, json_object_get(o, "queue"), no_parts, node, NULL, e);
	if (!rc)
		rc = list_of(o, "vms", object, &vms, e);
	if (rc < 0)
		return rc;
	json_array_foreach(vms, i, vm)
	{
		rc = apply_vm(c, node, vm, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int apply_document(struct change *c, void *arg, struct err *e)
{
	json_t *doc = arg, *nodes, *o;
	const char *name;
	size_t i;
	int rc;

	if (!json_is_object(doc) || !json_object_get(doc, "nodes"))
		return err_set(
			e, -EINVAL, "document", "nodes", "is needed; allowed: nodes: [ ... ]");
	json_object_foreach(doc, name, o)
	{
		if (strcmp(name, "nodes") != 0)
			return err_set(e, -EINVAL, "document", "",
				"only 'nodes' is known at the top; allowed: nodes: [ ... ]");
	}
	rc = list_of(doc, "nodes", "document", &nodes, e);
	json_array_foreach(nodes, i, o)
	{
		if (!rc)
			rc = apply_node(c, o, e);
	}
	return rc;
}

/* ---- in two steps where there are new nodes ------------------------------------------------------------- */

#define CONNECT_MS 6000

static int add_nodes(struct change *c, void *arg, struct err *e)
{
	json_t *o;
	size_t i;
	int rc = 0;

	json_array_foreach((json_t *)arg, i, o)
	{
		if (!rc)
			rc = put(c, &noun_node, o, node_parts, NULL, NULL, e);
	}
	return rc;
}

static int del_nodes(struct change *c, void *arg, struct err *e)
{
	json_t *o;
	size_t i;
	int rc = 0;

	json_array_foreach((json_t *)arg, i, o)
	{
		if (!rc)
			rc = change_del(c, &noun_node, o, e);
	}
	return rc;
}

/* Those nodes of the document that nobody knows yet. */
static int new_nodes(struct agent *a, const json_t *doc, json_t **list, struct err *e)
{
	json_t *o, *have;
	struct store *s;
	size_t i;
	int rc = store_open(a->db_path, &s, e);

	if (rc < 0)
		return rc;
	*list = json_array();
	json_array_foreach(json_object_get(doc, "nodes"), i, o)
	{
		have = NULL;
		if (json_string_value(json_object_get(o, "name")) &&
			store_get(s, &noun_node, o, &have, NULL) == -ENOENT)
			json_array_append(*list, o);
		json_decref(have);
	}
	store_close(s);
	return 0;
}

static int apply_with_new_nodes(struct agent *a, const struct change_options *o, json_t *doc,
	json_t *nodes, json_t **result, struct err *e)
{
	struct change_options check = *o;
	json_t *first = NULL, *changed, *node;
	size_t i;
	int rc;

	/* what is wrong in the document itself must not even make a node known */
	check.check_only = true;
	rc = change_run(a, &check, apply_document, doc, &first, e);
	json_decref(first);
	first = NULL;
	if (!rc)
		rc = change_run(a, o, add_nodes, nodes, &first, e);
	if (rc < 0)
		return rc;
	json_array_foreach(nodes, i, node)
	{
		node_wait_tried(a, json_string_value(json_object_get(node, "name")), CONNECT_MS);
	}
	rc = change_run(a, o, apply_document, doc, result, e);
	if (rc < 0) {
		json_t *none = NULL;

		if (change_run(a, o, del_nodes, nodes, &none, NULL) < 0)
			log_warn("apply: a node whose configuration was refused stays known");
		json_decref(none);
	} else {
		changed = json_incref(json_object_get(first, "changed"));
		json_array_extend(changed, json_object_get(*result, "changed"));
		json_object_set_new(*result, "changed", changed);
	}
	json_decref(first);
	return rc;
}

int apply_run(struct agent *a, const struct change_options *o, json_t *doc, json_t **result,
	struct err *e)
{
	json_t *nodes = NULL;
	int rc = new_nodes(a, doc, &nodes, e);

	if (!rc)
		rc = o->check_only || !json_array_size(nodes)
			     ? change_run(a, o, apply_document, doc, result, e)
			     : apply_with_new_nodes(a, o, doc, nodes, result, e);
	json_decref(nodes);
	return rc;
}
