// What the kernels of attention take.
#pragma once

#include "ops/kernel_table.h"
#include "ops/segments.h"
#include "tensor/view.h"

namespace ferry::ops {

/// Keys are taken in tiles of this many, counted from their document's first key: part of the
/// numerics format.
constexpr int64_t kKeyTile = 64;
static_assert(kPageRows % kKeyTile == 0, "a tile lies in one page");

struct AttentionArgs {
  View q;          // [T, H, Dqk] f32 or bf16
  View k;          // [S, Hk, Dqk], q's type; without the columns of k_tail
  View k_tail;     // [S, Hk, ...], or not given: the last columns of the keys
  View v;          // [S, Hk, Dv]
  View position;   // [T] i32
  View key_begin;  // [T] i32
  View pages;      // [n] i32, or not given: see Segments
  View out;        // [T, H, Dv]
  View lse;        // [T, H] f32: log of the sum of e^score, kept for the gradient
  float scale;
  int64_t longest;  // the largest position + 1
  template <class V>
  void visit(V&& v_) const {
    v_.in("q", q);
    v_.in("k", k);
    v_.in("k_tail", k_tail);
    v_.in("v", v);
    v_.in("position", position);
    v_.in("key_begin", key_begin);
    v_.in("pages", pages);
    v_.out("out", out);
    v_.out("lse", lse);
    v_.number("scale", static_cast<double>(scale));
    v_.number("longest", static_cast<double>(longest));
  }
};

struct AttentionBackwardArgs {
  View q, k, v, position, key_begin, out, lse, d_out;
  View d_q;       // [T, H, Dqk], q's type
  View d_k, d_v;  // [S, Hk, ...]; overwritten whole, zeros where no query looks. If v is the first
                  // columns of k itself, d_v is not given and d_k has the sum, rounded once.
  float scale;
  int64_t longest;
  template <class V>
  void visit(V&& v_) const {
    v_.in("q", q);
    v_.in("k", k);
    v_.in("v", v);
    v_.in("position", position);
    v_.in("key_begin", key_begin);
    v_.in("out", out);
    v_.in("lse", lse);
    v_.in("d_out", d_out);
    v_.out("d_q", d_q);
    v_.out("d_k", d_k);
    v_.out("d_v", d_v);
    v_.number("scale", static_cast<double>(scale));
    v_.number("longest", static_cast<double>(longest));
  }
};

DECLARE_CPU_KERNEL(AttentionArgs, attention_forward)
DECLARE_CPU_KERNEL(AttentionBackwardArgs, attention_backward)
DECLARE_ASCEND_KERNEL(AttentionArgs, attention_forward)
DECLARE_ASCEND_KERNEL(AttentionBackwardArgs, attention_backward)

}  // namespace ferry::ops
