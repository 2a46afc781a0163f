/* The plugin ABI of kvlab, version 5.
 *
 * A plugin is a shared object that exports one symbol, `kvlab_plugin`, a constant kvlab_descriptor. It is a codec
 * (turns a block of K or V into bytes and back) or a selector (scores tokens). Plugins written in C++ include
 * kvlab/plugin.hpp instead, which is this header with the plumbing done.
 *
 * Life cycle        dlopen -> descriptor checked -> create (once per layer and role) -> any calls -> destroy.
 *                   A plugin is never dlclosed. `destroy` is called once, after the last other call has returned.
 * Threads           The host owns them. After `create`, every call may come from any thread, several at once, on the
 *                   same instance, which is therefore const. A call runs on the calling thread, starts no other, and
 *                   leaves the rounding mode as it was: the host refuses a method that changes it.
 * Memory            The host owns it: every buffer in a call belongs to the host and is valid during that call only.
 *                   The instance is the plugin's, from create to destroy. Scratch of the asked size comes with each
 *                   call, 64-byte aligned, uninitialised; temporary allocations of one's own are allowed, but slow.
 * Alignment         Block bytes, scratch, prepared queries and accumulators start at multiples of 64 bytes. Views of
 *                   the workload have the alignment of their element type, no more.
 * Shapes            A KV tensor is [batch, kv_head, token, channel]; calls see one sequence of it. Strides are in
 *                   elements. Unless `heads` says otherwise, a block is one KV head's: [1, tokens, channels].
 * Numbers           Codecs never have to code NaN or infinity: the host refuses them, though where a program hands them
 *                   to a prefill it may look only after encode did, and then drops the block. They may be given zeros,
 *                   denormals and the largest finite numbers, and what encode accepts must decode to finite values: a
 *                   codec that cannot code a block refuses it (KVLAB_UNSUPPORTED). Attention on the bytes gives what
 *                   attention over the decoded rows gives, denormals included.
 * Damaged bytes     The bytes of a block may not be what encode wrote. Calls on such a block read its bytes and
 *                   KVLAB_READABLE more, write their outputs and nothing else, and return; what they compute is then
 *                   nobody's business, and so is their status. Whatever is read from a block that says where or how
 *                   much to read (a count, a rank, an offset) is checked against the block's size first.
 * Errors            A status is returned, and a sentence for people is written to the caller's message. No exception,
 *                   C++ type or allocator crosses this header.
 * Growing           Every struct that may grow starts with its own size; a host reads a field only where the size says
 *                   that it is there. Abilities are found by id. Before kvlab 1.0 KVLAB_ABI_VERSION changes whenever
 *                   this file does in meaning, and a host loads only its own version.
 * Reserved          A field marked so must be zero (null); traits, kinds and abilities that are reserved are refused
 *                   until they are built, other reserved fields are not read.
 */
#ifndef KVLAB_ABI_H
#define KVLAB_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVLAB_ABI_MAGIC 0x3142414c564bULL /* "KVLAB1" read as little-endian bytes */
#define KVLAB_ABI_VERSION 5u
#define KVLAB_PLUGIN_SYMBOL "kvlab_plugin"
#define KVLAB_EXPORT __attribute__((visibility("default")))

/* ---- statuses and messages ------------------------------------------------------------------------------------- */

typedef uint32_t kvlab_status;
#define KVLAB_OK 0u
#define KVLAB_INVALID_ARGUMENT 1u /* the parameters or the call do not fit together */
#define KVLAB_UNSUPPORTED 2u      /* well formed, but not for this method: the cell's row says `unsupported` */
#define KVLAB_OUT_OF_MEMORY 3u
#define KVLAB_INTERNAL 4u

/* Where a call that fails writes why: UTF-8, one line, zero-terminated, cut at `capacity`. Caller's memory. */
typedef struct kvlab_message {
  char* text;
  uint64_t capacity;
} kvlab_message;

/* ---- element types --------------------------------------------------------------------------------------------- */

typedef uint32_t kvlab_dtype;
#define KVLAB_F32 0u
#define KVLAB_F16 1u
#define KVLAB_BF16 2u

/* ---- parameters ------------------------------------------------------------------------------------------------ */

typedef uint32_t kvlab_parameter_type;
#define KVLAB_INT 0u   /* int64 */
#define KVLAB_FLOAT 1u /* double, finite */
#define KVLAB_BOOL 2u
#define KVLAB_CHOICE 3u /* one of `choices`, passed as its index */
/* Reserved: string 4, path 5, list 6, codec 7. */

typedef union kvlab_value {
  int64_t i; /* KVLAB_INT; KVLAB_BOOL as 0 or 1; KVLAB_CHOICE as an index */
  double f;  /* KVLAB_FLOAT */
} kvlab_value;

/* One declared parameter. The host parses, fills in defaults and checks the range, so that values arrive at create
 * in the order of declaration, typed, complete and in range. */
typedef struct kvlab_parameter {
  uint32_t struct_size;
  kvlab_parameter_type type;
  const char* name; /* [a-z][a-z0-9_]* */
  kvlab_value default_value;
  kvlab_value minimum; /* INT, FLOAT: inclusive. Ignored where integers are listed. */
  kvlab_value maximum;
  const char* const* choices; /* CHOICE: names */
  const int64_t* integers;    /* INT: the allowed values, or null for the whole range */
  uint64_t count;             /* of choices or integers */
  const char* unit;           /* a symbol ("token", "bit", "1"), or "" */
  const char* meaning;        /* one line */
} kvlab_parameter;

/* ---- what an instance is created for --------------------------------------------------------------------------- */

#define KVLAB_ROLE_KEYS 0u
#define KVLAB_ROLE_VALUES 1u
#define KVLAB_ROLE_BOTH 2u /* selectors get this; for codecs reserved */

#define KVLAB_ROPE_NONE 0u
#define KVLAB_ROPE_HALF 1u        /* channel i turns with i + rope_dim/2 */
#define KVLAB_ROPE_INTERLEAVED 2u /* channel 2i turns with 2i + 1 */

/* One layer of the model. Keys are as attention reads them, after RoPE; position p turned pair i by p * inv_freq[i].
 * The struct and inv_freq are valid during create only. */
typedef struct kvlab_layer {
  uint32_t struct_size;
  uint32_t role;
  uint32_t layer; /* the model's own number */
  uint32_t kv_heads;
  uint32_t query_heads; /* a multiple of kv_heads; query head h reads KV head h / (query_heads / kv_heads) */
  uint32_t head_dim_keys;
  uint32_t head_dim_values;
  kvlab_dtype dtype; /* the workload's */
  double attention_scale;
  uint64_t window; /* the layer attends to that many tokens only; 0: to all */
  uint32_t rope_style;
  uint32_t rope_dim;
  const double* inv_freq; /* [rope_dim / 2]; null when rope_style is none */
  uint64_t seed;
  uint32_t layer_count; /* reserved (an instance for several layers): 1 */
  uint32_t reserved;
} kvlab_layer;

/* Rows of numbers that a kernel of the host walks: token t's channels start `t * stride` elements after `base`. */
typedef struct kvlab_rows {
  const void* base; /* aligned to its element */
  kvlab_dtype dtype;
  uint32_t reserved;
  uint64_t stride; /* >= channels */
  uint64_t tokens;
  uint64_t channels; /* 1 .. 512 */
  const void* ahead; /* will be read next: prefetched as the rows are walked. A hint; null: nothing */
  uint64_t ahead_size;
} kvlab_rows;

/* Instruction sets, each with those before it (kvlab/isa.hpp). */
#define KVLAB_ISA_SCALAR 0u
#define KVLAB_ISA_AVX2 1u
#define KVLAB_ISA_AVX512 2u
#define KVLAB_ISA_AVX512VNNI 3u

/* What the host offers to a plugin. Valid for the life of the process. Its kernels are those of the core, for the
 * instruction set of this machine. */
typedef struct kvlab_host {
  uint32_t struct_size;
  uint32_t abi_version;
  /* out[i * out_stride + t] = q_i . row t, for `count` queries of `channels` f32 */
  void (*dots)(const kvlab_rows* rows, const float* queries, uint64_t query_stride, uint64_t count, float* out,
               uint64_t out_stride);
  /* sums[i * sum_stride + c] += sum over t of weights[i * weight_stride + t] * row t's channel c */
  void (*sums)(const kvlab_rows* rows, const float* weights, uint64_t weight_stride, uint64_t count, float* sums,
               uint64_t sum_stride);
  void (*log)(uint32_t level, const char* text); /* 0 debug, 1 info, 2 warning, 3 error; any thread */
  const void* make_codec;                        /* reserved: a codec by name, for wrappers such as a rotation */
  uint32_t isa; /* KVLAB_ISA_*: what a method's own kernels may use, and at most: the machine has it, and where the host
                   wants another set, the baseline of a benchmark, it says so here */
  uint32_t reserved;
} kvlab_host;

/* ---- data in calls --------------------------------------------------------------------------------------------- */

/* [heads, tokens, channels] of one sequence, read only. Element (h, t, c) is at
 * base + (h * head_stride + t * token_stride + c) elements; channels are contiguous. */
typedef struct kvlab_view {
  const void* base;
  kvlab_dtype dtype; /* may differ from the workload's */
  uint32_t heads;
  uint64_t tokens;
  uint64_t channels;
  int64_t head_stride;
  int64_t token_stride;
} kvlab_view;

/* Queries of one KV head's group, f32 after RoPE, unscaled: [heads of the group, count, channels]. */
typedef struct kvlab_queries {
  const float* base;
  uint32_t heads;
  uint64_t count;
  uint64_t channels;
  int64_t head_stride;
  int64_t query_stride;
  const uint32_t* positions; /* [count], ascending */
} kvlab_queries;

/* An encoded block as every block call gets it. `bytes` is what encode wrote, nothing else is kept for it. */
typedef struct kvlab_block {
  uint32_t struct_size;
  uint32_t heads;       /* 1; more is reserved */
  const uint8_t* bytes; /* 64-byte aligned; the KVLAB_READABLE bytes after its `size` may be read: they mean nothing and
                           may change */
  uint64_t size;
  uint64_t tokens;
  const uint32_t* positions; /* [tokens] in the sequence, not always ascending; null: from first_position on; of an
                                evicted token 2^31 or more: no query reads it */
  uint32_t first_position;
  uint32_t kv_head;     /* the (first) KV head this block is of */
  const uint8_t* ahead; /* bytes that the next call will read: prefetch them as you go. A hint; null: none */
  uint64_t ahead_size;
} kvlab_block;

/* So many bytes after a block may be read: loads of whole registers need no special end. */
#define KVLAB_READABLE 64u

/* What a block's bytes are, for the result's columns. They add up to its size. Padding is payload. */
typedef struct kvlab_parts {
  uint64_t payload; /* codes, outlier values, coefficients */
  uint64_t scales;  /* scales and zero points */
  uint64_t indices; /* positions, indices, ranks */
  uint64_t bases;   /* bases, codebooks */
} kvlab_parts;

typedef struct kvlab_encode_in {
  uint32_t struct_size;
  uint32_t kv_head;
  kvlab_view view; /* 1 .. block_tokens tokens */
  const uint32_t* positions;
  uint32_t first_position;
  uint32_t reserved;
  void* scratch;                 /* traits.encode_scratch bytes */
  const kvlab_view* peer;        /* reserved: V where this is K, and the other way round */
  const kvlab_queries* observed; /* reserved */
  const float* scores;           /* reserved: a selector's, one per token */
} kvlab_encode_in;

/* A hint: the bytes, which start at a multiple of 64, will not be read soon, so non-temporal stores pay. Who uses them
 * fences them (sfence) before encode returns. A flag that is not known is ignored. */
#define KVLAB_PAST_CACHES 1u

typedef struct kvlab_encode_out {
  uint32_t struct_size;
  uint32_t flags; /* KVLAB_PAST_CACHES or 0 */
  uint8_t* bytes; /* `capacity` >= bound(tokens); written by encode */
  uint64_t capacity;
  uint64_t size;     /* set by encode: bytes used */
  kvlab_parts parts; /* set by encode */
  uint32_t* order;   /* reserved: [tokens], the order in which the codec kept them; null: unasked */
} kvlab_encode_out;

/* ---- a codec --------------------------------------------------------------------------------------------------- */

typedef struct kvlab_codec kvlab_codec; /* the plugin's own */

#define KVLAB_NEEDS_PEER 1u     /* reserved */
#define KVLAB_NEEDS_OBSERVED 2u /* reserved */
#define KVLAB_NEEDS_SCORES 4u   /* reserved */

/* What an instance states of itself, once, after create. */
typedef struct kvlab_codec_traits {
  uint32_t struct_size;
  uint32_t needs;          /* KVLAB_NEEDS_*: reserved, 0 */
  uint64_t block_tokens;   /* the most tokens a block holds; the last block of a prefill may be shorter */
  uint64_t decode_granule; /* >= 1: calls ask for [first, first + count) with first a multiple of it, and count a
                              multiple too or up to the block's end */
  uint64_t append_granule; /* 0: a block is closed once encoded; above 0 reserved */
  uint64_t encode_scratch; /* bytes of scratch of each call */
  uint64_t decode_scratch;
  uint64_t attend_scratch;
  uint64_t state_bytes;  /* the instance's own state that decoding reads (rotations, codebooks): counted as bases */
  uint64_t state_key;    /* instances of one method with the same non-zero key share that state, counted once: what the
                            state depends on (a seed, a rank) goes into the key. 0: it is this instance's own */
  uint32_t heads;        /* KV heads coded together: 1; more is reserved */
  uint32_t whole_blocks; /* 1: attention prefers whole blocks to tiles of the granule */
  uint32_t fills_bound;  /* 1: encode always fills bound(tokens), so the block is written where it stays */
  uint32_t reserved;
} kvlab_codec_traits;

typedef struct kvlab_codec_functions {
  uint32_t struct_size;
  uint32_t reserved;
  /* Checks the values against each other and makes an instance. On failure *out stays untouched. */
  kvlab_status (*create)(const kvlab_host* host, const kvlab_layer* layer, const kvlab_value* values, kvlab_codec** out,
                         kvlab_message* message);
  void (*destroy)(kvlab_codec* codec);
  kvlab_status (*traits)(const kvlab_codec* codec, kvlab_codec_traits* out);
  /* The most bytes a block of that many tokens takes, for 1 .. block_tokens. */
  uint64_t (*bound)(const kvlab_codec* codec, uint64_t tokens);
  kvlab_status (*encode)(const kvlab_codec* codec, const kvlab_encode_in* in, kvlab_encode_out* out,
                         kvlab_message* message);
  /* f32 rows of tokens [first, first + count) of the block, row t at rows + t * row_stride. */
  kvlab_status (*decode)(const kvlab_codec* codec, const kvlab_block* block, uint64_t first, uint64_t count,
                         float* rows, uint64_t row_stride, void* scratch, kvlab_message* message);
} kvlab_codec_functions;

/* Ability: attention scores straight from the bytes of keys. */
#define KVLAB_ABILITY_ATTEND_KEYS "kvlab.attend_keys"
typedef struct kvlab_attend_keys {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t (*prepared_bytes)(const kvlab_codec* codec, uint64_t queries);
  /* Queries [queries, head_dim_keys], contiguous f32, of one KV head's group, into the codec's own form. Once per step.
   */
  kvlab_status (*prepare)(const kvlab_codec* codec, uint32_t kv_head, const float* queries, uint64_t count,
                          void* prepared, void* scratch, kvlab_message* message);
  /* scores[i * score_stride + t] = q_i . k̂_(first + t), without the attention scale: the host applies it. */
  kvlab_status (*scores)(const kvlab_codec* codec, const void* prepared, uint64_t queries, const kvlab_block* block,
                         uint64_t first, uint64_t count, float* scores, uint64_t score_stride, void* scratch,
                         kvlab_message* message);
} kvlab_attend_keys;

/* Ability: the weighted sum of values straight from their bytes. The accumulator is linear in what was added: the
 * host zeroes it, scales all of it for the online softmax, adds two of them up where it splits tokens, and never
 * asks what its width means. `finish` is linear too. */
#define KVLAB_ABILITY_ATTEND_VALUES "kvlab.attend_values"
typedef struct kvlab_attend_values {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t (*width)(const kvlab_codec* codec); /* floats a query */
  /* accumulator[i * width + .] += sum over t of weights[i * weight_stride + t] * v̂_(first + t). Weights are those of
   * a softmax before it is normalised: finite, 0 or more. */
  kvlab_status (*accumulate)(const kvlab_codec* codec, const float* weights, uint64_t queries, uint64_t weight_stride,
                             const kvlab_block* block, uint64_t first, uint64_t count, float* accumulator,
                             void* scratch, kvlab_message* message);
  /* Output rows [queries, head_dim_values], contiguous. Once per step. */
  kvlab_status (*finish)(const kvlab_codec* codec, uint32_t kv_head, const float* accumulator, uint64_t queries,
                         float* rows, void* scratch, kvlab_message* message);
} kvlab_attend_values;

/* Ability: some of a block's tokens as a block of their own, which decodes to the same rows: what is left of a block
 * that tokens were evicted from. */
#define KVLAB_ABILITY_GATHER "kvlab.gather"
typedef struct kvlab_gather {
  uint32_t struct_size;
  uint32_t reserved;
  /* keep[count], ascending, count >= 1; out as in encode, of capacity bound(count); scratch: traits.encode_scratch.
   * KVLAB_UNSUPPORTED where these tokens cannot be a block of their own: the host leaves the block as it is. */
  kvlab_status (*gather)(const kvlab_codec* codec, const kvlab_block* block, const uint32_t* keep, uint64_t count,
                         kvlab_encode_out* out, void* scratch, kvlab_message* message);
} kvlab_gather;

/* Reserved ability ids, refused until they are built: "kvlab.append" (tokens into an open block), "kvlab.fit" (from
 * calibration rows into state), "kvlab.cuda" (the same calls with device pointers on a stream). */

/* ---- a selector ------------------------------------------------------------------------------------------------ */

typedef struct kvlab_selector kvlab_selector; /* the plugin's own */

#define KVLAB_READS_KEYS 1u
#define KVLAB_READS_VALUES 2u
#define KVLAB_READS_QUERIES 4u

/* What the score of a token depends on, beside the token's own rows and position, the sequence and KV head, and the
 * instance. While tokens are appended to a cache, the host calls a selector accordingly:
 *
 *   TOKEN     on nothing else. New tokens are scored when they come, in a call of their own, and each score is kept
 *             (and counted) as long as its token.
 *   PRESENT   on the other tokens present, too: their rows, their number or their order. No score is kept: at each
 *             eviction one call sees all tokens that are present then. Where the selector reads rows they are f32,
 *             exact for raw tokens and decoded for those in blocks; that decoding is part of what an append costs.
 *   OBSERVED  on observed queries. There are none while decoding: the selector chooses among the tokens of a prefill,
 *             and it neither scores nor evicts those that come later. An instance that reads queries has this scope, no
 *             other has.
 *
 * A prefill is one call over all tokens present, whatever the scope. One that states TOKEN falsely gets scores from
 * different calls compared, which means nothing: `kvlab check` finds it. */
#define KVLAB_SCOPE_TOKEN 0u
#define KVLAB_SCOPE_PRESENT 1u
#define KVLAB_SCOPE_OBSERVED 2u

/* Tokens of one KV head that are present: all of them in a prefill and at an eviction, only those that come when new
 * tokens are scored (KVLAB_SCOPE_TOKEN). What the instance did not say that it reads is empty. */
typedef struct kvlab_selector_in {
  uint32_t struct_size;
  uint32_t kv_head;
  uint32_t sequence; /* in the batch */
  uint32_t reserved;
  uint64_t tokens;
  const uint32_t* positions; /* [tokens], ascending */
  kvlab_view keys;
  kvlab_view values;
  kvlab_queries observed; /* queries that a method may see; no query it is judged on is ever among them */
  void* scratch;          /* scratch(tokens, observed.count) bytes */
} kvlab_selector_in;

typedef struct kvlab_selector_functions {
  uint32_t struct_size;
  uint32_t reserved;
  kvlab_status (*create)(const kvlab_host* host, const kvlab_layer* layer, const kvlab_value* values,
                         kvlab_selector** out, kvlab_message* message);
  void (*destroy)(kvlab_selector* selector);
  uint32_t (*reads)(const kvlab_selector* selector); /* KVLAB_READS_*; asked once, after create, as is the scope */
  uint32_t (*scope)(const kvlab_selector* selector); /* one of KVLAB_SCOPE_* */
  uint64_t (*scratch)(const kvlab_selector* selector, uint64_t tokens, uint64_t observed);
  /* scores[tokens]; the host keeps the highest. A NaN is an error of the method. */
  kvlab_status (*scores)(const kvlab_selector* selector, const kvlab_selector_in* in, float* scores,
                         kvlab_message* message);
  uint64_t state_per_token; /* reserved (H2O: the host keeps a state per token and updates it while decoding): 0 */
} kvlab_selector_functions;

/* ---- the descriptor -------------------------------------------------------------------------------------------- */

#define KVLAB_CODEC 1u
#define KVLAB_SELECTOR 2u

/* `extern const kvlab_descriptor kvlab_plugin;` is the plugin's only exported symbol. All it points to is constant
 * and lives as long as the library. The first three fields never change place. */
typedef struct kvlab_descriptor {
  uint64_t magic;
  uint32_t abi_version;
  uint32_t struct_size;
  uint32_t kind; /* KVLAB_CODEC, KVLAB_SELECTOR */
  uint32_t parameter_count;
  const kvlab_parameter* parameters;
  const char* id; /* [a-z][a-z0-9_]*: the folder's name, and the name in an experiment */
  const char* version;
  const char* summary;                      /* one line */
  const char* paper_title;                  /* "" where there is none */
  const char* paper_arxiv;                  /* "2402.02750", or "" */
  const char* license;                      /* SPDX */
  const kvlab_codec_functions* codec;       /* null unless a codec */
  const kvlab_selector_functions* selector; /* null unless a selector */
  /* The function table of an ability, or null. Null function: no abilities. */
  const void* (*ability)(const char* ability_id);
  /* How the library was built, which its speed depends on: the compiler ("g++ 12.2.0", or "" where it is not known),
   * and 1 where it optimized. Results store both, and the host warns of 0. */
  const char* compiler;
  uint32_t optimized;
  uint32_t reserved;
} kvlab_descriptor;

#ifdef __cplusplus
}
#endif
#endif
