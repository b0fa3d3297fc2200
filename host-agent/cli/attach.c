/* SPDX-License-Identifier: BSD-3-Clause */
/* How a VM attaches its virtio-blk functions: what libvirt and QEMU have to be told. */
#include "host-agent/cli/cli.h"

#include "host-agent/cli/attach.h"
#include "host-agent/cli/http.h"
#include "host-agent/cli/out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

json_t *attach_functions(struct cli *c, const char *node_name, const char *vm)
{
	json_t *answer = NULL, *found = NULL, *node, *v;
	struct err e;
	long status = 0;
	size_t i, k;

	if (http_call(c->socket, "GET", "/v1/status", NULL, NULL, &status, &answer, &e) == 0 &&
		status == 200)
		json_array_foreach(json_object_get(answer, "items"), i, node)
			json_array_foreach(json_object_get(json_object_get(node, "card"), "vms"), k,
				v) if (!strcmp(out_string(node, "node"), node_name) &&
				       !strcmp(out_string(v, "name"), vm) && !found)
				found = json_incref(json_object_get(v, "vhost"));
	json_decref(answer);
	return found;
}

/* ---- text ---------------------------------------------------------------------------------------------------------- */

/* For an attribute in single quotes. */
static void put_xml(FILE *f, const char *s)
{
	for (; *s; s++) {
		const char *as = *s == '&'    ? "&amp;"
				 : *s == '<'  ? "&lt;"
				 : *s == '\'' ? "&apos;"
					      : NULL;

		if (as)
			fputs(as, f);
		else
			fputc(*s, f);
	}
}

/* A value among QEMU's comma-separated ones. */
static void put_qemu(FILE *f, const char *s)
{
	for (; *s; s++)
		fputs(*s == ',' ? ",," : (char[]){*s, 0}, f);
}

static char *xml_of(const json_t *d, size_t number)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fprintf(f,
		"<disk type='vhostuser' device='disk'>\n"
		"  <driver name='qemu' type='raw' queues='%lld'/>\n"
		"  <source type='unix' path='",
		(long long)json_integer_value(json_object_get(d, "queues")));
	put_xml(f, out_string(d, "socket"));
	/* vda to vdz, vdaa and so on. */
	fprintf(f,
		"'>\n"
		"    <reconnect enabled='yes' timeout='1'/>\n"
		"  </source>\n"
		"  <target dev='vd%s%c' bus='virtio'/>\n"
		"</disk>\n",
		number < 26 ? "" : (char[]){(char)('a' + (char)(number / 26 - 1)), 0},
		(char)('a' + (char)(number % 26)));
	fclose(f);
	return text;
}

static char *chardev_of(const json_t *d, size_t number)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fprintf(f, "socket,id=parapet%zu,path=", number);
	put_qemu(f, out_string(d, "socket"));
	fputs(",reconnect=1", f);
	fclose(f);
	return text;
}

/* ---- the answer ------------------------------------------------------------------------------------------------------ */

static json_t *device_of(const json_t *d, size_t number)
{
	char *xml = xml_of(d, number), *chardev = chardev_of(d, number), device[96];
	json_t *o;

	snprintf(device, sizeof(device), "vhost-user-blk-pci,chardev=parapet%zu,num-queues=%lld",
		number, (long long)json_integer_value(json_object_get(d, "queues")));
	o = json_pack("{s:s, s:s, s:O?, s:s, s:[s, s, s, s]}", "path", out_string(d, "path"),
		"socket", out_string(d, "socket"), "connected", json_object_get(d, "connected"),
		"xml", xml ? xml : "", "qemu", "-chardev", chardev ? chardev : "", "-device",
		device);
	free(xml);
	free(chardev);
	return o;
}

static const char memory_xml[] = "<memoryBacking>\n"
				 "  <source type='memfd'/>\n"
				 "  <access mode='shared'/>\n"
				 "</memoryBacking>\n";

static json_t *answer_of(const char *vm, json_t *functions, long long memory)
{
	json_t *list = json_array(), *d;
	char object[96], machine[] = "memory-backend=parapet-mem";
	size_t i;

	snprintf(object, sizeof(object), "memory-backend-memfd,id=parapet-mem,size=%lldM,share=on",
		memory > 0 ? memory >> 20 : 1024);
	json_array_foreach(functions, i, d) json_array_append_new(list, device_of(d, i));
	return json_pack("{s:s, s:s, s:[s, s, s, s], s:o}", "vm", vm, "memory_xml", memory_xml,
		"memory_qemu", "-object", object, "-machine", machine, "devices", list);
}

static void put_words(const json_t *words)
{
	json_t *word;
	size_t i;

	json_array_foreach(words, i, word) printf(" %s", json_string_value(word));
}

static void show(const json_t *a, bool memory_known)
{
	json_t *d;
	size_t i;

	printf("<!-- in the domain: the card reaches its memory -->\n%s",
		out_string(a, "memory_xml"));
	json_array_foreach(json_object_get(a, "devices"), i, d)
		printf("<!-- %s -->\n%s", out_string(d, "path"), out_string(d, "xml"));
	printf("\nQEMU without libvirt%s:\n ",
		memory_known ? "" : " (size: the VM's memory; set it with 'vm set --memory')");
	put_words(json_object_get(a, "memory_qemu"));
	json_array_foreach(json_object_get(a, "devices"), i, d)
	{
		printf(" \\\n ");
		put_words(json_object_get(d, "qemu"));
	}
	puts("");
}

int vm_attach_run(struct cli *c, const struct cli_command *cmd)
{
	const char *name = json_string_value(json_object_get(c->request, "name"));
	json_t *answer = NULL, *vms, *functions, *a;
	struct err e = {0};
	long status = 0;
	char object[96], node[80];
	long long memory;
	int rc;

	rc = http_call(c->socket, "GET", "/v1/vms", c->request, NULL, &status, &answer, &e);
	if (rc < 0 || status != 200)
		return rc < 0 ? cli_complain(c, &e, EXIT_NO_AGENT)
			      : cli_show(c, cmd, status, answer);
	vms = json_object_get(answer, "items");
	snprintf(object, sizeof(object), "vm %.80s", name);
	memory = json_integer_value(json_object_get(json_array_get(vms, 0), "memory"));
	snprintf(node, sizeof(node), "%s", out_string(json_array_get(vms, 0), "node"));
	rc = json_array_size(vms) ? 0 : -ENOENT;
	json_decref(answer);
	if (rc < 0) {
		err_set(&e, -ENOENT, object, "", "does not exist");
		return cli_complain(c, &e, EXIT_NOT_FOUND);
	}
	functions = attach_functions(c, node, name);
	if (!json_array_size(functions)) {
		json_decref(functions);
		err_set(&e, -ENOENT, object, "vhost",
			"the card has no virtio-blk function of it; it needs a directory for the "
			"sockets "
			"('vm set --vhost DIR') and a device ('device add')");
		return cli_complain(c, &e, EXIT_REFUSED);
	}
	a = answer_of(name, functions, memory);
	if (c->json) {
		json_dumpf(a, stdout, JSON_INDENT(2));
		puts("");
	} else {
		show(a, memory > 0);
	}
	json_decref(a);
	json_decref(functions);
	return EXIT_OK;
}
