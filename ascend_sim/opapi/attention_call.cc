#include "opapi/attention_call.h"

#include <limits>
#include <mutex>

namespace ascend_sim {
namespace {

constexpr int64_t kCompressed = 2048;

Tensor reshaped(const Tensor& t, Shape shape, Shape strides) {
  Tensor out = t;
  out.shape = std::move(shape);
  out.strides = std::move(strides);
  return out;
}

/// positions [first, first + n) of one head as rows of floats.
std::vector<float> rows_of(const Tensor& t, int64_t batch, int64_t head, int64_t first, int64_t n) {
  return floats(view(t.select(0, batch).select(0, head).narrow(0, first, n)));
}

/// a and, behind each row, b's.
std::vector<float> joined(const std::vector<float>& a, const std::vector<float>& b, int64_t rows) {
  if (b.empty()) return a;
  const auto n = static_cast<size_t>(rows);
  const size_t wa = a.size() / std::max<size_t>(n, 1), wb = b.size() / std::max<size_t>(n, 1);
  std::vector<float> out;
  out.reserve(a.size() + b.size());
  for (size_t r = 0; r < n; ++r) {
    out.insert(out.end(),
               a.begin() + static_cast<int64_t>(r * wa),
               a.begin() + static_cast<int64_t>((r + 1) * wa));
    out.insert(out.end(),
               b.begin() + static_cast<int64_t>(r * wb),
               b.begin() + static_cast<int64_t>((r + 1) * wb));
  }
  return out;
}

/// Keys (or values) of a sequence, through the block table where there is one.
std::vector<float> keys_of(const AttentionCall& call,
                           const Tensor& t,
                           const Sequence& s,
                           int64_t head) {
  if (!call.blocks) return rows_of(t, s.batch, head, s.k_first, s.k_length);
  const std::vector<int64_t> table = integers(view(call.blocks->select(0, s.batch)));
  std::vector<float> out;
  const int64_t needed = (s.k_length + call.block_size - 1) / call.block_size;
  for (int64_t b = 0; b < needed; ++b) {
    const int64_t n = std::min(call.block_size, s.k_length - b * call.block_size);
    const std::vector<float> part = rows_of(t, table[static_cast<size_t>(b)], head, 0, n);
    out.insert(out.end(), part.begin(), part.end());
  }
  const int64_t width = t.dim(-1);
  if (call.stale_row && s.k_length > 1)
    std::copy_n(out.end() - 2 * width, width, out.end() - width);
  return out;
}

struct Loaded {
  std::vector<float> q, k, v;
  AttentionSizes sizes;
};

/// Queries of all heads that share key head `kv`, and its keys and values.
Loaded load_group(const AttentionCall& call, const Sequence& s, int64_t kv, int64_t group) {
  Loaded l;
  for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    const std::vector<float> nope = rows_of(call.q, s.batch, h, s.q_first, s.q_length);
    const std::vector<float> rope = call.q_rope
                                        ? rows_of(*call.q_rope, s.batch, h, s.q_first, s.q_length)
                                        : std::vector<float>();
    const std::vector<float> both = joined(nope, rope, s.q_length);
    l.q.insert(l.q.end(), both.begin(), both.end());
  }
  const std::vector<float> rope =
      call.k_rope ? keys_of(call, *call.k_rope, s, kv) : std::vector<float>();
  l.k = joined(keys_of(call, call.k, s, kv), rope, s.k_length);
  l.v = keys_of(call, call.v, s, kv);
  l.sizes = {group * s.q_length,
             s.k_length,
             call.q.dim(-1) + (call.q_rope ? call.q_rope->dim(-1) : 0),
             call.v.dim(-1)};
  return l;
}

/// Each sequence with the keys of the one before it in front: what a kernel without documents sees.
std::vector<Sequence> merged_documents(const std::vector<Sequence>& all) {
  std::vector<Sequence> out = all;
  for (size_t i = 1; i < out.size(); ++i)
    if (all[i].batch == all[i - 1].batch) {
      out[i].k_first = all[i - 1].k_first;
      out[i].k_length = all[i].k_length + all[i - 1].k_length;
    }
  return out;
}

AttentionOptions options_of(const Launch& at,
                            const AttentionCall& call,
                            const AttentionDefects& defects,
                            int64_t rows) {
  AttentionOptions options;
  options.scale = defects.no_scale ? 1.0f : call.scale;
  options.zero_blind_rows = call.zero_blind_rows;
  options.no_rescale = defects.no_rescale;
  options.order = {at.order(rows)};
  return options;
}

}  // namespace

Tensor by_heads(
    const Plan& op, const char* name, const Tensor& t, const std::string& layout, int64_t heads) {
  const auto bad = [&](int rank) { op.require_rank(name, t, rank, rank); };
  op.require(heads > 0, "the number of heads must be positive");
  if (layout == "BSH" || layout == "SBH") {
    bad(3);
    op.require(t.dim(2) % heads == 0, std::string(name) + ": heads do not divide H");
    const int64_t dim = t.dim(2) / heads;
    const int b = layout == "BSH" ? 0 : 1;
    return reshaped(t,
                    {t.dim(b), heads, t.dim(1 - b), dim},
                    {t.stride(b), dim * t.stride(2), t.stride(1 - b), t.stride(2)});
  }
  Tensor out = t;
  if (layout == "BSND") {
    bad(4);
    out = t.transposed(1, 2);
  } else if (layout == "NBSD") {
    bad(4);
    out = t.transposed(0, 1);
  } else if (layout == "BNSD") {
    bad(4);
  } else if (layout == "TND") {
    bad(3);
    out =
        reshaped(t, {1, t.dim(1), t.dim(0), t.dim(2)}, {0, t.stride(1), t.stride(0), t.stride(2)});
  } else if (layout == "NTD") {
    bad(3);
    out =
        reshaped(t, {1, t.dim(0), t.dim(1), t.dim(2)}, {0, t.stride(0), t.stride(1), t.stride(2)});
  } else {
    op.refuse("inputLayout \"" + layout + "\" is not supported");
  }
  op.require(out.dim(1) == heads,
             std::string(name) + " has " + std::to_string(out.dim(1)) + " heads, not " +
                 std::to_string(heads));
  return out;
}

std::vector<Sequence> sequences_from_sums(const Plan& op,
                                          const std::vector<int64_t>& q_sums,
                                          const std::vector<int64_t>& k_sums,
                                          int64_t queries,
                                          int64_t keys) {
  op.require(!q_sums.empty() && q_sums.size() == k_sums.size(),
             "actualSeqLen arrays must be given, of one length");
  std::vector<Sequence> out;
  int64_t q = 0, k = 0;
  for (size_t i = 0; i < q_sums.size(); ++i) {
    op.require(q_sums[i] >= q && k_sums[i] >= k, "actualSeqLen must be running sums");
    out.push_back({0, q, q_sums[i] - q, k, k_sums[i] - k});
    q = q_sums[i];
    k = k_sums[i];
  }
  op.require(q <= queries && k <= keys, "actualSeqLen ends behind the last token");
  return out;
}

Masks::Masks(const MaskRules& rules, const AttentionDefects& defects)
    : rules_(rules), defects_(defects) {
  if (!rules_.mask || !rules_.compressed()) return;
  // Kernels read the mask's content around the diagonal. One column tells it all if it is as it
  // must be; if it is not, what was passed is what hides.
  const Tensor& m = *rules_.mask;
  const View column = view(m.select(m.rank() - 1, kCompressed / 2));
  std::vector<int64_t> values(static_cast<size_t>(kCompressed));
  read(column, 0, kCompressed, values.data());
  for (int64_t r = 0; r < kCompressed; ++r) {
    by_delta_.push_back(values[static_cast<size_t>(r)] != 0);
    lower_triangle_ &= (values[static_cast<size_t>(r)] != 0) == (r < kCompressed / 2);
  }
}

Visible Masks::of(const Sequence& s, int64_t head, int64_t i, std::vector<uint8_t>& room) const {
  const int64_t keys = s.k_length;
  if (!rules_.mask) return {0, keys, nullptr};
  Visible v{0, keys, nullptr};
  const int64_t extra = defects_.causal_off_by_one ? 1 : 0;
  const auto bounded = [keys](int64_t at) { return std::clamp<int64_t>(at, 0, keys); };
  const auto sum = [](int64_t a, int64_t b) {  // of token counts, which may be INT64_MAX
    int64_t out = 0;
    return __builtin_add_overflow(a, b, &out)
               ? (b > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min())
               : out;
  };
  if (rules_.compressed()) {
    const int64_t corner = rules_.mode == 2 ? 0 : keys - s.q_length;
    const int64_t after = rules_.mode == 4 ? rules_.after : 0;
    int64_t last = bounded(sum(sum(i + corner, after), 1 + extra));
    if (rules_.mode == 4)
      v.first = bounded(sum(i + corner, -std::min<int64_t>(rules_.before, keys + s.q_length)));
    if (rules_.mode == 6 && static_cast<size_t>(s.batch) < rules_.prefix.size())
      last = std::max(last, bounded(rules_.prefix[static_cast<size_t>(s.batch)]));
    v.last = std::max(last, v.first);
    if (lower_triangle_) return v;
    room.assign(static_cast<size_t>(keys), 0);
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t delta = std::clamp<int64_t>(sum(i + corner - j, after), -1024, 1023);
      room[static_cast<size_t>(j)] = by_delta_[static_cast<size_t>(delta + 1024)];
    }
    return {v.first, keys, room.data()};
  }
  const Tensor& m = *rules_.mask;
  const Tensor row = m.select(0, m.dim(0) == 1 ? 0 : s.batch).select(0, m.dim(1) == 1 ? 0 : head);
  std::vector<int64_t> bytes(static_cast<size_t>(keys));
  read(view(row.select(0, i)), 0, keys, bytes.data());
  room.assign(static_cast<size_t>(keys), 0);
  for (size_t j = 0; j < room.size(); ++j) room[j] = bytes[j] != 0;
  if (extra && i + 1 < keys) room[static_cast<size_t>(i + 1)] = 0;
  if (rules_.mode == 0) {  // the band is counted from the first key
    v.last = bounded(sum(i, sum(rules_.after, 1 + extra)));
    v.first = bounded(sum(i, -std::min<int64_t>(rules_.before, keys + s.q_length)));
    v.last = std::max(v.last, v.first);
  }
  v.hidden = room.data();
  return v;
}

void run_attention(Launch& at,
                   const AttentionCall& call,
                   const AttentionDefects& defects,
                   const Tensor& out,
                   const SoftmaxOutput& softmax) {
  const int64_t heads = call.q.dim(1), key_heads = call.k.dim(1), group = heads / key_heads;
  const Masks masks(call.mask, defects);
  const std::vector<Sequence>& own = call.sequences;
  const std::vector<Sequence> wide = defects.across_documents ? merged_documents(own) : own;
  int64_t rows = 0;
  for (const Sequence& s : own) rows += s.q_length;
  const AttentionOptions options = options_of(at, call, defects, rows);
  if (call.blocks)
    for (const Sequence& s : own) {
      const std::vector<int64_t> table = integers(view(call.blocks->select(0, s.batch)));
      for (int64_t b = 0; b * call.block_size < s.k_length; ++b)
        if (table[static_cast<size_t>(b)] < 0 || table[static_cast<size_t>(b)] >= call.k.dim(0))
          at.fault(code::kAicoreException,
                   "block " + std::to_string(table[static_cast<size_t>(b)]) + " of " +
                       std::to_string(call.k.dim(0)));
    }
  in_parallel(static_cast<int64_t>(own.size()) * key_heads, [&](int64_t part) {
    const auto index = static_cast<size_t>(part / key_heads);
    const int64_t kv = part % key_heads;
    const Sequence &s = own[index], &read_as = wide[index];
    if (s.q_length == 0) return;
    Sequence loaded = read_as;
    loaded.q_first = s.q_first;
    const Loaded l = load_group(call, loaded, kv, group);
    const int64_t before = read_as.k_length - s.k_length;  // keys of another document, in front
    std::vector<std::vector<uint8_t>> rooms(static_cast<size_t>(l.sizes.rows));
    const auto visible = [&](int64_t row) {
      auto& room = rooms[static_cast<size_t>(row)];
      Visible v = masks.of(s, kv * group + row / s.q_length, row % s.q_length, room);
      if (before > 0) {
        room.insert(room.begin(), static_cast<size_t>(v.hidden ? before : 0), 0);
        v = {0, v.last + before, v.hidden ? room.data() : nullptr};
      }
      return v;
    };
    const auto n = static_cast<size_t>(l.sizes.rows);
    std::vector<float> y(n * static_cast<size_t>(l.sizes.value_dim)), maximum(n), total(n);
    attend(l.q.data(),
           l.k.data(),
           l.v.data(),
           l.sizes,
           visible,
           options,
           y.data(),
           maximum.data(),
           total.data());
    for (int64_t g = 0; g < group; ++g) {
      const int64_t head = kv * group + g;
      write(view(out.select(0, s.batch).select(0, head).narrow(0, s.q_first, s.q_length)),
            0,
            s.q_length * l.sizes.value_dim,
            y.data() + g * s.q_length * l.sizes.value_dim);
      for (int64_t i = 0; i < s.q_length; ++i) {
        const auto r = static_cast<size_t>(g * s.q_length + i);
        softmax(index, head, i, maximum[r], total[r]);
      }
    }
  });
}

void run_attention_gradient(Launch& at,
                            const AttentionGradientCall& call,
                            const AttentionDefects& defects) {
  const AttentionCall& f = call.forward;
  const int64_t heads = f.q.dim(1), key_heads = f.k.dim(1), group = heads / key_heads;
  const Masks masks(f.mask, defects);
  int64_t rows = 0;
  for (const Sequence& s : f.sequences) rows += s.q_length;
  const AttentionOptions options = options_of(at, f, defects, rows);
  in_parallel(static_cast<int64_t>(f.sequences.size()) * key_heads, [&](int64_t part) {
    const auto index = static_cast<size_t>(part / key_heads);
    const Sequence& s = f.sequences[index];
    const int64_t kv = part % key_heads;
    if (s.q_length == 0) return;
    const Loaded l = load_group(f, s, kv, group);
    const int64_t dim = l.sizes.dim, value_dim = l.sizes.value_dim;
    const auto n = static_cast<size_t>(l.sizes.rows);
    std::vector<float> dy, y, maximum(n), total(n);
    for (int64_t g = 0; g < group; ++g) {
      const int64_t head = kv * group + g;
      for (auto [from, to] : {std::pair{&call.dy, &dy}, std::pair{&call.y, &y}}) {
        const std::vector<float> rows_here = rows_of(*from, s.batch, head, s.q_first, s.q_length);
        to->insert(to->end(), rows_here.begin(), rows_here.end());
      }
      for (auto [from, to] : {std::pair{&call.maximum, &maximum}, std::pair{&call.sum, &total}})
        read(view((*from)[index].select(0, head)), 0, s.q_length, to->data() + g * s.q_length);
    }
    if (defects.lse_off)
      for (float& m : maximum) m += 0.125f;
    std::vector<std::vector<uint8_t>> rooms(n);
    const auto visible = [&](int64_t row) {
      return masks.of(
          s, kv * group + row / s.q_length, row % s.q_length, rooms[static_cast<size_t>(row)]);
    };
    std::vector<float> dq(l.q.size()), dk(l.k.size(), 0.0f), dv(l.v.size(), 0.0f);
    attend_backward(l.q.data(),
                    l.k.data(),
                    l.v.data(),
                    dy.data(),
                    y.data(),
                    maximum.data(),
                    total.data(),
                    l.sizes,
                    visible,
                    options,
                    {dq.data(), dk.data(), dv.data()});
    const auto put = [&](const Tensor& to,
                         int64_t head,
                         int64_t first,
                         int64_t length,
                         int64_t width,
                         const float* from) {
      write(view(to.select(0, s.batch).select(0, head).narrow(0, first, length)),
            0,
            length * width,
            from);
    };
    for (int64_t g = 0; g < group; ++g)
      put(call.dq, kv * group + g, s.q_first, s.q_length, dim, dq.data() + g * s.q_length * dim);
    put(call.dk, kv, s.k_first, s.k_length, dim, dk.data());
    put(call.dv, kv, s.k_first, s.k_length, value_dim, dv.data());
  });
}

}  // namespace ascend_sim
