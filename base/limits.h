/* Limits of Cairn, each a named constant (DESIGN.md section 11). A queue, batch, message, name or list without a
 * constant here is a bug. Units stand last in each name. */
#ifndef CAIRN_BASE_LIMITS_H
#define CAIRN_BASE_LIMITS_H

#define LIMIT_FRAME_HEADER_BYTES (1u << 20)           /* protobuf header of one frame */
#define LIMIT_FRAME_BODY_BYTES   (16u << 20)          /* raw body of one frame */
#define LIMIT_FRAME_UNAUTH_BYTES (64u << 10)          /* header and body together before the hello was accepted */
#define LIMIT_HELLO_NS           (10ull * 1000000000) /* a connection that has not said hello by then is closed */
#define LIMIT_IDLE_NS            (60ull * 1000000000) /* a connection silent for so long is closed */
#define LIMIT_DRAIN_SECONDS      300                  /* the longest an end in order may be given */
#define DRAIN_SECONDS            10                   /* unless the configuration says else */
#define LIMIT_PROTO_DEPTH        16                   /* nested messages */
#define LIMIT_LOG_BOOTS          16                   /* processes that a metadata node's directory remembers */
#define LIMIT_PROTO_FIELDS       10000                /* fields of one message, nested ones counted (proto/unpack.h) */
#define LIMIT_PROTO_ARENA_BYTES  (4u << 20)           /* memory one unpacked message may take */

#define LIMIT_NAME_BYTES   255
#define LIMIT_PATH_BYTES   4096
#define LIMIT_PATH_DEPTH   128
#define LIMIT_INLINE_BYTES 4096 /* a file up to this is carried in its manifest */

#define LIMIT_CHUNK_BYTES  (4u << 20)                        /* plain bytes of one chunk */
#define LIMIT_SEALED_BYTES (LIMIT_CHUNK_BYTES + (64u << 10)) /* a sealed chunk, header and tags included */
#define LIMIT_COPY_CHUNK_BYTES                                                                                         \
    (64u << 10) /* plain chunks up to this are kept as m+1 copies, unless the namespace says else (R-F2) */
#define LIMIT_SHARDS        16         /* k+m */
#define LIMIT_ASK_CHUNKS    1024       /* chunk hashes in one ask */
#define LIMIT_PAGE_ENTRIES  1024       /* chunks in one manifest page */
#define LIMIT_OPEN_SESSIONS 4096       /* uploads a device has open in one namespace: past it, BUSY */
#define LIMIT_LIST_ENTRIES  1000       /* entries in one listing page */
#define LIMIT_FEED_EVENTS   1000       /* events in one feed page */
#define LIMIT_REPLY_BYTES   (1u << 20) /* one page of any query */

#define LIMIT_RAFT_MEMBERS        9
#define LIMIT_METADS_KNOWN        64          /* metadata nodes a block server or client asks in turn */
#define LIMIT_JOINS               64          /* tokens that are neither expired nor used long ago */
#define LIMIT_AUTHORITY_BYTES     1024u       /* the authority's certificate, or its sealed key */
#define LIMIT_GROUPS              256         /* groups of one metad */
#define LIMIT_ENTRY_BYTES         (1u << 20)  /* one Raft entry */
#define LIMIT_PROPOSALS           4096        /* commands a group holds before it answers BUSY */
#define LIMIT_INBOX_EVENTS        65536       /* events an actor's inbox holds */
#define LIMIT_LOG_SEGMENT_BYTES   (16u << 20) /* one log segment file */
#define LIMIT_DATABASES_ASIDE     4           /* damaged databases that a metadata node keeps: past it, it halts */
#define LIMIT_STORE_SEGMENT_BYTES (64u << 20) /* one segment file of a store */
#define LIMIT_COMPUTE_INPUT_BYTES (8u << 20)  /* input of one compute job: a sealed chunk with its parity at most */
#define LIMIT_POOL_BYTES          (64u << 20) /* free bulk buffers a process keeps for the next use */
#define LIMIT_STORES              4096        /* stores in one map */
#define LIMIT_PGS                 4096        /* placement groups of one pool */

#endif
