/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Protobuf messages as JSON, by their descriptors: what a card says about itself goes to the user without a
 * copy of every field list. Names are those of the contract; enum values lose their prefix and are in lower case
 * ("OUTCOME_PROTECT" -> "protect"); bytes become hexadecimal; absent fields are missing members; text that
 * is not printable ASCII or UTF-8 is shown with '?'.
 * Thread: any. Ownership: the result belongs to the caller; NULL: out of memory.
 */
#ifndef HOST_AGENT_AGENTD_PBJSON_H
#define HOST_AGENT_AGENTD_PBJSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

json_t *pbjson_message(const ProtobufCMessage *m);

#endif
