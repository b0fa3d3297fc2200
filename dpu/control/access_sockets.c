/* SPDX-License-Identifier: BSD-3-Clause */
/* Ways in over kernel sockets: one listen address per VM. On silicon a scalable function that hardware hands the flow to. */
#include "dpu/control/card.h"
#include "dpu/net/sockets.h"

#include <stdio.h>
#include <string.h>

/* Whether the address is one of this machine's: told before any VM is touched. The port may still be someone else's. */
static int sockets_check(void *provider, const Parapet__Tables *tables, const Parapet__Vm *vm,
	const struct tables_access *a, struct err *e)
{
	struct sockets_cfg cfg = {.addr = a->addr, .port = 0};
	struct stream_listener *l;
	struct err why = {0};
	char object[96];
	int rc = sockets_listen(provider, &cfg, &l, &why);

	if (rc == 0) {
		stream_listener_close(l);
		return 0;
	}
	snprintf(object, sizeof(object), "vm %.64s", vm->name);
	return err_set(e, rc, object, "listen", "%s: %s", vm->listen,
		why.reason[0] ? why.reason : strerror(-rc));
}

static int sockets_open(void *provider, const Parapet__Tables *tables, const Parapet__Vm *vm,
	const struct tables_access *a, struct nvme_tcp_vm *tvm, void **way, struct err *e)
{
	struct sockets_cfg cfg = {.addr = a->addr, .port = a->tcp_port};
	struct stream_listener *l;
	struct err why = {0};
	char object[96];
	int rc = sockets_listen(provider, &cfg, &l, &why);

	snprintf(object, sizeof(object), "vm %.64s", vm->name);
	if (rc < 0)
		return err_set(e, rc, object, "listen", "%s: %s", vm->listen,
			why.reason[0] ? why.reason : strerror(-rc));
	rc = nvme_tcp_vm_listen(tvm, l);
	if (rc < 0)
		return err_set(e, rc, object, "listen", "%s: %s", vm->listen, strerror(-rc));
	*way = NULL; /* the listener is the target's */
	return 0;
}

static void sockets_close(void *provider, void *way)
{
	/* nvme_tcp_vm_del() closed the listener. */
}

const struct access_ops access_sockets = {
	.kind = TABLES_ACCESS_SOCKET,
	.name = "socket",
	.check = sockets_check,
	.open = sockets_open,
	.close = sockets_close,
};
