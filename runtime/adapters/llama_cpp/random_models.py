"""Small models with random weights, for tests: random_models.py FOLDER

attention  llama: full attention in all layers
swa        gemma3: sliding-window layers beside full ones
mamba      recurrent state only
hybrid     jamba: attention in one layer of four, recurrent state in the others
large      llama with 64 KiB of K and V a token (f16), for measuring; the only one with a vocabulary,
           because llama-server ends itself where it is asked for the text of a token without one
"""

import sys

import gguf
import numpy as np

CONTEXT = 32768
rng = np.random.default_rng(1)


def matrix(rows, columns, scale=1.0, dtype=np.float16):
    return (rng.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(dtype)


def vocabulary_add(writer, size):
    """Three special tokens, all bytes, and words that mean nothing."""
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [gguf.TokenType.UNKNOWN] + 2 * [gguf.TokenType.CONTROL] + 256 * [gguf.TokenType.BYTE]
    more = size - len(words)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words + [f"\u2581w{word}" for word in range(more)])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types(kinds + more * [gguf.TokenType.NORMAL])


def start(path, architecture, layers, width, vocabulary, file_type, has_words=False):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    if has_words:
        vocabulary_add(writer, vocabulary)
    else:
        writer.add_tokenizer_model("none")
    writer.add_file_type(file_type)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def attention(path, layers, width, heads, kv_heads, head, vocabulary, window=0, has_words=False):
    architecture = "gemma3" if window else "llama"
    w = start(path, architecture, layers, width, vocabulary, gguf.LlamaFileType.MOSTLY_F16, has_words)
    w.add_feed_forward_length(2 * width)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_rope_dimension_count(head)
    w.add_rope_freq_base(10000.0)
    ones = lambda size: np.ones(size, np.float32)
    if window:
        w.add_sliding_window(window)
    w.add_tensor("token_embd.weight", matrix(vocabulary, width, np.sqrt(width)))
    w.add_tensor("output_norm.weight", ones(width))
    if not window:
        w.add_tensor("output.weight", matrix(vocabulary, width, 3.0))
    for layer in range(layers):
        prefix = f"blk.{layer}."
        w.add_tensor(prefix + "attn_norm.weight", ones(width))
        w.add_tensor(prefix + "ffn_norm.weight", ones(width))
        if window:
            w.add_tensor(prefix + "post_attention_norm.weight", ones(width))
            w.add_tensor(prefix + "post_ffw_norm.weight", ones(width))
            w.add_tensor(prefix + "attn_q_norm.weight", ones(head))
            w.add_tensor(prefix + "attn_k_norm.weight", ones(head))
        w.add_tensor(prefix + "attn_q.weight", matrix(heads * head, width, 1.5))
        w.add_tensor(prefix + "attn_k.weight", matrix(kv_heads * head, width, 1.5))
        w.add_tensor(prefix + "attn_v.weight", matrix(kv_heads * head, width))
        w.add_tensor(prefix + "attn_output.weight", matrix(width, heads * head))
        w.add_tensor(prefix + "ffn_gate.weight", matrix(2 * width, width))
        w.add_tensor(prefix + "ffn_up.weight", matrix(2 * width, width))
        w.add_tensor(prefix + "ffn_down.weight", matrix(width, 2 * width))
    finish(w)


def single(rows, columns, scale=1.0):
    return matrix(rows, columns, scale, np.float32)


def recurrent_start(w, width, state):
    """Keys of mamba layers; returns their inner size, length of convolution, rank of the time step."""
    inner, convolution, rank = 2 * width, 4, max(8, width // 16)
    w.add_ssm_conv_kernel(convolution)
    w.add_ssm_inner_size(inner)
    w.add_ssm_state_size(state)
    w.add_ssm_time_step_rank(rank)
    return inner, convolution, rank


def recurrent_layer(w, prefix, width, state, sizes):
    inner, convolution, rank = sizes
    decay = -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1))
    w.add_tensor(prefix + "ssm_in.weight", single(2 * inner, width))
    w.add_tensor(prefix + "ssm_conv1d.weight", single(inner, convolution))
    w.add_tensor(prefix + "ssm_conv1d.bias", np.zeros(inner, np.float32))
    w.add_tensor(prefix + "ssm_x.weight", single(rank + 2 * state, inner))
    w.add_tensor(prefix + "ssm_dt.weight", single(inner, rank))
    w.add_tensor(prefix + "ssm_dt.bias", np.full(inner, -2, np.float32))
    w.add_tensor(prefix + "ssm_a", decay)
    w.add_tensor(prefix + "ssm_d", np.ones(inner, np.float32))
    w.add_tensor(prefix + "ssm_out.weight", single(width, inner))


def ends(w, width, vocabulary):
    w.add_tensor("token_embd.weight", single(vocabulary, width, np.sqrt(width)))
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    w.add_tensor("output.weight", single(vocabulary, width, 3.0))


def mamba(path, layers, width, state, vocabulary):
    w = start(path, "mamba", layers, width, vocabulary, gguf.LlamaFileType.ALL_F32)
    w.add_feed_forward_length(0)
    w.add_head_count(0)
    sizes = recurrent_start(w, width, state)
    ends(w, width, vocabulary)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        w.add_tensor(prefix + "attn_norm.weight", np.ones(width, np.float32))
        recurrent_layer(w, prefix, width, state, sizes)
    finish(w)


def hybrid(path, layers, width, heads, kv_heads, state, vocabulary):
    """jamba without experts: a layer without KV heads is a mamba layer."""
    w = start(path, "jamba", layers, width, vocabulary, gguf.LlamaFileType.ALL_F32)
    w.add_feed_forward_length(2 * width)
    w.add_head_count(heads)
    w.add_head_count_kv([kv_heads if layer % 4 == 1 else 0 for layer in range(layers)])
    sizes = recurrent_start(w, width, state)
    rank = sizes[2]
    ones = lambda size: np.ones(size, np.float32)
    ends(w, width, vocabulary)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        w.add_tensor(prefix + "attn_norm.weight", ones(width))
        if layer % 4 == 1:
            kv_width = kv_heads * width // heads
            w.add_tensor(prefix + "attn_q.weight", single(width, width, 1.5))
            w.add_tensor(prefix + "attn_k.weight", single(kv_width, width, 1.5))
            w.add_tensor(prefix + "attn_v.weight", single(kv_width, width))
            w.add_tensor(prefix + "attn_output.weight", single(width, width))
        else:
            recurrent_layer(w, prefix, width, state, sizes)
            w.add_tensor(prefix + "ssm_dt_norm.weight", ones(rank))
            w.add_tensor(prefix + "ssm_b_norm.weight", ones(state))
            w.add_tensor(prefix + "ssm_c_norm.weight", ones(state))
        w.add_tensor(prefix + "ffn_norm.weight", ones(width))
        w.add_tensor(prefix + "ffn_gate.weight", single(2 * width, width))
        w.add_tensor(prefix + "ffn_up.weight", single(2 * width, width))
        w.add_tensor(prefix + "ffn_down.weight", single(width, 2 * width))
    finish(w)


folder = sys.argv[1]
attention(f"{folder}/attention.gguf", 4, 256, 4, 2, 64, 512)
attention(f"{folder}/swa.gguf", 8, 256, 4, 2, 64, 512, window=64)
mamba(f"{folder}/mamba.gguf", 4, 256, 16, 512)
attention(f"{folder}/large.gguf", 16, 512, 8, 8, 128, 512, has_words=True)
hybrid(f"{folder}/hybrid.gguf", 4, 256, 4, 2, 16, 512)
