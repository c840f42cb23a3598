// Mixture of experts: gating, routing tokens to experts and back, and the gradients.
#include <cmath>
#include <limits>
#include <numeric>

#include "opapi/exponential.h"
#include "opapi/op_kit.h"
#include "opapi/sums.h"

using namespace ascend_sim;

namespace {

/// Reads rows of a [rows, hidden] tensor (of any rank whose first dimensions make up the rows).
class RowsOf {
 public:
  explicit RowsOf(const Tensor& t, int64_t hidden) : view_(ascend_sim::view(t)), hidden_(hidden) {}
  void get(int64_t row, float* out) const { read(view_, row * hidden_, hidden_, out); }
  void set(int64_t row, const float* values) const { write(view_, row * hidden_, hidden_, values); }

 private:
  View view_;
  int64_t hidden_;
};

/// work(first, last) over rows, on several threads.
template <class Work>
void in_rows(int64_t rows, const Work& work) {
  in_parallel((rows + 31) / 32,
              [&](int64_t part) { work(part * 32, std::min(rows, (part + 1) * 32)); });
}

/// Positions of `keys` in ascending order of key, equal ones in their order.
std::vector<int64_t> sorted_positions(const std::vector<int64_t>& keys) {
  std::vector<int64_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
  });
  return order;
}

/// A row index within [0, rows), or -1; anything else faults where `strict`.
std::vector<int64_t> row_indices(const Launch& at, const Tensor& t, int64_t rows, bool strict) {
  std::vector<int64_t> all = integers(view(t));
  for (int64_t& i : all) {
    if (strict && (i < -1 || i >= rows))
      at.fault(code::kVectorCoreException,
               "row " + std::to_string(i) + " of " + std::to_string(rows));
    if (i < 0 || i >= rows) i = -1;
  }
  return all;
}

}  // namespace

// --- gating
// ---------------------------------------------------------------------------------------

namespace {

struct Gate {
  int64_t k, groups_kept, groups;
  bool top_two, softmax;
  float scaling, eps;
};

/// The k best of `choice`; of equal ones the lower index first.
std::vector<int64_t> chosen(std::vector<float>& choice, const Gate& gate) {
  const auto experts = static_cast<int64_t>(choice.size());
  const int64_t size = experts / gate.groups;
  const auto best = [](const std::vector<float>& v, int64_t n) {
    std::vector<int64_t> order(v.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return v[static_cast<size_t>(a)] > v[static_cast<size_t>(b)];
    });
    order.resize(static_cast<size_t>(n));
    return order;
  };
  if (gate.groups > 1) {
    std::vector<float> scores;
    for (int64_t g = 0; g < gate.groups; ++g) {
      const std::vector<float> mine(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      const std::vector<int64_t> top = best(mine, std::min<int64_t>(gate.top_two ? 2 : 1, size));
      float score = 0;
      for (int64_t i : top) score += mine[static_cast<size_t>(i)];
      scores.push_back(score);
    }
    std::vector<bool> kept(static_cast<size_t>(gate.groups), false);
    for (int64_t g : best(scores, gate.groups_kept)) kept[static_cast<size_t>(g)] = true;
    for (int64_t e = 0; e < experts; ++e)
      if (!kept[static_cast<size_t>(e / size)])
        choice[static_cast<size_t>(e)] = -std::numeric_limits<float>::infinity();
  }
  return best(choice, gate.k);
}

}  // namespace

ASCEND_DEFECT(gating_softmax_for_sigmoid, "MoeGatingTopK", "normType 1 is taken for softmax")
ASCEND_DEFECT(gating_ignores_groups, "MoeGatingTopK", "chooses among the experts of all groups")
ASCEND_DEFECT(gating_bias_in_weights,
              "MoeGatingTopK",
              "the bias counts in the weights, not in the choice alone")
ASCEND_DEFECT(gating_expert_off_by_one, "MoeGatingTopK", "names the expert behind the chosen one")
ASCEND_DEFECT(gating_no_scaling, "MoeGatingTopK", "leaves out routedScalingFactor")

ASCEND_OP(MoeGatingTopK,
          const aclTensor* x_in,
          const aclTensor* bias_in,
          int64_t k,
          int64_t k_group,
          int64_t group_count,
          int64_t group_select_mode,
          int64_t renorm,
          int64_t norm_type,
          bool out_flag,
          double routed_scaling_factor,
          double eps,
          const aclTensor* y_out,
          const aclTensor* expert_idx_out,
          const aclTensor* out_out) {
  return plan("MoeGatingTopK", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor x = op.input("x", x_in);
    const std::optional<Tensor> bias = op.optional_input("biasOptional", bias_in);
    const Tensor y = op.output("yOut", y_out), index = op.output("expertIdxOut", expert_idx_out);
    std::optional<Tensor> scores;
    if (out_flag) scores = op.output("outOut", out_out);
    require_float(op, "x", x);
    op.require_rank("x", x, 1, 8);
    const int64_t experts = x.dim(-1);
    if (bias) {
      require_float(op, "biasOptional", *bias);
      op.require_shape("biasOptional", *bias, {experts});
    }
    op.require(experts <= 2048, "more than 2048 experts");
    op.require(group_count > 0 && experts % group_count == 0, "experts do not make whole groups");
    op.require(group_select_mode == 0 || group_select_mode == 1, "groupSelectMode must be 0 or 1");
    const int64_t size = experts / group_count;
    op.require(size > group_select_mode && (size + 31) / 32 * 32 * group_count <= 2048,
               "a group has too few or too many experts");
    op.require(k_group >= 1 && k_group <= group_count, "kGroup is not within groupCount");
    op.require(k >= 1 && k <= size * k_group, "k is not within the experts of kGroup groups");
    op.require(renorm == 0, "renorm must be 0");
    op.require(norm_type == 0 || norm_type == 1, "normType must be 0 or 1");
    Shape shape = x.shape;
    shape.back() = k;
    op.require_same_type("x", x, "yOut", y);
    op.require_shape("yOut", y, shape);
    op.require_type("expertIdxOut", index, {ACL_INT32});
    op.require_shape("expertIdxOut", index, shape);
    if (scores) {
      op.require_type("outOut", *scores, {ACL_FLOAT});
      op.require_shape("outOut", *scores, x.shape);
    }
    op.launch([=](Launch& at) {
      const bool no_groups = defect("gating_ignores_groups"),
                 shifted = defect("gating_expert_off_by_one");
      const bool biased = defect("gating_bias_in_weights");
      const bool softmax = norm_type == 0 || defect("gating_softmax_for_sigmoid");
      const Gate gate{
          k,
          k_group,
          no_groups ? 1 : group_count,
          group_select_mode == 1,
          norm_type == 0,
          defect("gating_no_scaling") ? 1.0f : static_cast<float>(routed_scaling_factor),
          static_cast<float>(eps)};
      const std::vector<float> shift = bias ? floats(view(*bias)) : std::vector<float>();
      const int64_t rows = x.elements() / experts;
      const Order order{at.order(rows)};
      in_rows(rows, [&](int64_t first, int64_t last) {
        std::vector<float> score(static_cast<size_t>(experts)), weights(static_cast<size_t>(k));
        for (int64_t r = first; r < last; ++r) {
          read(view(x), r * experts, experts, score.data());
          if (softmax) {
            exponentials(score.data(), experts, largest(score.data(), experts));
            const float total = sum(score.data(), experts, order);
            for (float& s : score) s /= total;
          } else {
            for (float& s : score) s = 1 / (1 + std::exp(-s));
          }
          if (scores) write(view(*scores), r * experts, experts, score.data());
          std::vector<float> choice = score;
          for (size_t e = 0; e < shift.size(); ++e) choice[e] += shift[e];
          const std::vector<float> with_bias = choice;
          std::vector<int64_t> picks = chosen(choice, gate);
          float total = 0;
          for (size_t i = 0; i < picks.size(); ++i) {
            const auto e = static_cast<size_t>(picks[i]);
            weights[i] = biased ? with_bias[e] : score[e];
            total += weights[i];
          }
          // Renormalised over the chosen ones with sigmoid; renorm is 0 with softmax.
          for (float& w : weights) w = (gate.softmax ? w : w / (total + gate.eps)) * gate.scaling;
          if (shifted)
            for (int64_t& e : picks) e = (e + 1) % experts;
          write(view(y), r * k, k, weights.data());
          write(view(index), r * k, k, picks.data());
        }
      });
    });
  });
}

// --- MoeInitRoutingV2, MoeFinalizeRoutingV2
// -------------------------------------------------------

namespace {

void require_float_rows(const Plan& op, const char* name, const Tensor& t, const Tensor& like) {
  require_float(op, name, t);
  op.require_same_type(name, t, "the first tensor", like);
}

}  // namespace

ASCEND_DEFECT(init_routing_drops_last,
              "MoeInitRoutingV2",
              "the last expanded row is not written: zeros")
ASCEND_DEFECT(init_routing_count_off_by_one,
              "MoeInitRoutingV2",
              "the first expert's rows count for the second")

// expandedRowIdxOut[token * k + j] is the row of expandedXOut that holds the token for its j-th
// expert: rows are in expert order, within an expert in the order of (token, j).
ASCEND_OP(MoeInitRoutingV2,
          const aclTensor* x_in,
          const aclTensor* expert_idx,
          int64_t active_num,
          int64_t expert_capacity,
          int64_t expert_num,
          int64_t drop_pad_mode,
          int64_t count_or_cumsum_flag,
          bool before_capacity_flag,
          const aclTensor* expanded_x_out,
          const aclTensor* expanded_row_idx_out,
          const aclTensor* count_or_cumsum_out,
          const aclTensor* before_capacity_out) {
  return plan("MoeInitRoutingV2", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("x", x_in), expert = op.input("expertIdx", expert_idx);
    const Tensor rows = op.output("expandedXOut", expanded_x_out);
    const Tensor row_of = op.output("expandedRowIdxOut", expanded_row_idx_out);
    require_float(op, "x", x);
    op.require_rank("x", x, 2, 2);
    op.require_type("expertIdx", expert, {ACL_INT32});
    op.require_rank("expertIdx", expert, 2, 2);
    op.require(expert.dim(0) == x.dim(0), "expertIdx has not a row for each of x");
    op.require(active_num >= 0 && expert_capacity >= 0 && expert_num >= 0,
               "activeNum, expertCapacity and expertNum must not be negative");
    op.require(drop_pad_mode == 0 || drop_pad_mode == 1, "dropPadMode must be 0 or 1");
    op.require(count_or_cumsum_flag >= 0 && count_or_cumsum_flag <= 2,
               "expertTokensCountOrCumsumFlag must be 0, 1 or 2");
    const bool drop = drop_pad_mode == 1;
    const int64_t hidden = x.dim(1), k = expert.dim(1), all = expert.elements();
    op.require(!drop || (expert_num > 0 && expert_capacity > 0 && expert_capacity <= x.dim(0)),
               "dropPadMode 1 needs expertNum and an expertCapacity within the rows of x");
    op.require_same_type("x", x, "expandedXOut", rows);
    const int64_t active = active_num > 0 ? std::min(active_num, all) : all;
    op.require_shape("expandedXOut",
                     rows,
                     drop ? Shape{expert_num, expert_capacity, hidden} : Shape{active, hidden});
    op.require_type("expandedRowIdxOut", row_of, {ACL_INT32});
    op.require_shape("expandedRowIdxOut", row_of, {all});
    std::optional<Tensor> counts, before;
    if (count_or_cumsum_flag != 0 && !drop) {
      op.require(expert_num > 0, "expertNum is needed for expertTokensCountOrCumsumOut");
      counts = op.output("expertTokensCountOrCumsumOut", count_or_cumsum_out);
      op.require_type("expertTokensCountOrCumsumOut", *counts, {ACL_INT32});
      op.require_shape("expertTokensCountOrCumsumOut", *counts, {expert_num});
    }
    if (before_capacity_flag && drop) {
      before = op.output("expertTokensBeforeCapacityOut", before_capacity_out);
      op.require_type("expertTokensBeforeCapacityOut", *before, {ACL_INT32});
      op.require_shape("expertTokensBeforeCapacityOut", *before, {expert_num});
    }
    op.workspace(1024 + static_cast<uint64_t>(all) * 16);
    op.launch([=](Launch& at) {
      const std::vector<int64_t> of = integers(view(expert));
      for (int64_t e : of)
        if (e < 0 || ((drop || counts) && e >= expert_num))
          at.fault(code::kVectorCoreException,
                   "expert " + std::to_string(e) + " of " + std::to_string(expert_num));
      const std::vector<int64_t> order = sorted_positions(of);
      std::vector<int64_t> row(of.size(), -1), histogram(static_cast<size_t>(expert_num), 0);
      // Which (token, j) fills each row; -1: padding.
      std::vector<int64_t> filled(static_cast<size_t>(drop ? expert_num * expert_capacity : active),
                                  -1);
      for (size_t i = 0; i < order.size(); ++i) {
        const auto p = static_cast<size_t>(order[i]);
        const auto e = static_cast<size_t>(of[p]);
        int64_t place = static_cast<int64_t>(i);
        if (drop)
          place = histogram[e] < expert_capacity
                      ? static_cast<int64_t>(e) * expert_capacity + histogram[e]
                      : -1;
        if (e < histogram.size()) ++histogram[e];
        row[p] = place;
        if (place >= 0 && place < static_cast<int64_t>(filled.size()))
          filled[static_cast<size_t>(place)] = order[i];
      }
      write(view(row_of), 0, all, row.data());
      const bool dropped = defect("init_routing_drops_last") && !filled.empty();
      if (dropped) filled.back() = -1;
      const RowsOf from(x, hidden), to(rows, hidden);
      in_rows(static_cast<int64_t>(filled.size()), [&](int64_t first, int64_t last) {
        std::vector<float> one(static_cast<size_t>(hidden));
        for (int64_t r = first; r < last; ++r) {
          const int64_t p = filled[static_cast<size_t>(r)];
          if (p < 0)
            std::fill(one.begin(), one.end(), 0.0f);
          else
            from.get(p / k, one.data());
          to.set(r, one.data());
        }
      });
      if (before) write(view(*before), 0, expert_num, histogram.data());
      if (counts) {
        if (defect("init_routing_count_off_by_one") && expert_num > 1) {
          ++histogram[1];
          --histogram[0];
        }
        if (count_or_cumsum_flag == 1)
          std::partial_sum(histogram.begin(), histogram.end(), histogram.begin());
        write(view(*counts), 0, expert_num, histogram.data());
      }
    });
  });
}

namespace {

/// out[token] = the sum over j of rows[row_of[token * k + j]] (times weights), in the order of j.
void gather_rows(const Tensor& rows,
                 const std::vector<int64_t>& row_of,
                 const std::vector<float>& weights,
                 int64_t k,
                 int64_t hidden,
                 const Tensor& out) {
  const RowsOf from(rows, hidden), to(out, hidden);
  in_rows(static_cast<int64_t>(row_of.size()) / k, [&](int64_t first, int64_t last) {
    std::vector<float> total(static_cast<size_t>(hidden)), one(static_cast<size_t>(hidden));
    for (int64_t t = first; t < last; ++t) {
      std::fill(total.begin(), total.end(), 0.0f);
      for (int64_t j = 0; j < k; ++j) {
        const auto p = static_cast<size_t>(t * k + j);
        if (row_of[p] < 0) continue;
        from.get(row_of[p], one.data());
        const float w = weights.empty() ? 1.0f : weights[p];
        for (size_t i = 0; i < total.size(); ++i) total[i] += w * one[i];
      }
      to.set(t, total.data());
    }
  });
}

}  // namespace

ASCEND_OP(MoeInitRoutingV2Grad,
          const aclTensor* grad_in,
          const aclTensor* expanded_row_idx,
          int64_t top_k,
          int64_t drop_pad_mode,
          int64_t active_num,
          const aclTensor* out) {
  return plan("MoeInitRoutingV2Grad", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor grad = op.input("gradExpandedX", grad_in),
                 row_of = op.input("expandedRowIdx", expanded_row_idx);
    const Tensor y = op.output("out", out);
    op.require(drop_pad_mode == 0 || drop_pad_mode == 1, "dropPadMode must be 0 or 1");
    op.require_rank("gradExpandedX", grad, drop_pad_mode == 1 ? 3 : 2, drop_pad_mode == 1 ? 3 : 2);
    op.require_type("expandedRowIdx", row_of, {ACL_INT32});
    op.require_rank("expandedRowIdx", row_of, 1, 1);
    op.require(top_k > 0 && row_of.elements() % top_k == 0, "topK does not divide expandedRowIdx");
    op.require(active_num >= 0, "activeNum must not be negative");
    const int64_t hidden = grad.dim(-1);
    if (drop_pad_mode == 0)
      op.require(grad.dim(0) == (active_num > 0 ? active_num : row_of.elements()),
                 "gradExpandedX has not a row for each active entry");
    require_float_rows(op, "gradExpandedX", grad, y);
    op.require_shape("out", y, {row_of.elements() / top_k, hidden});
    op.launch([=](Launch& at) {
      const int64_t rows = grad.elements() / std::max<int64_t>(hidden, 1);
      gather_rows(grad, row_indices(at, row_of, rows, false), {}, top_k, hidden, y);
    });
  });
}

ASCEND_REDUCES(MoeFinalizeRoutingV2)
ASCEND_DEFECT(finalize_no_scales,
              "MoeFinalizeRoutingV2",
              "adds the experts up without their scales")

// dropPadMode 0 and 1: expandedRowIdx is ordered by (j, token); 2 and 3: by (token, j), as
// MoeInitRoutingV2 gives it.
ASCEND_OP(MoeFinalizeRoutingV2,
          const aclTensor* expanded_x,
          const aclTensor* expanded_row_idx,
          const aclTensor* x1_in,
          const aclTensor* x2_in,
          const aclTensor* bias_in,
          const aclTensor* scales_in,
          const aclTensor* expert_idx,
          int64_t drop_pad_mode,
          const aclTensor* out) {
  return plan("MoeFinalizeRoutingV2", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("expandedX", expanded_x),
                 row_of = op.input("expandedRowIdx", expanded_row_idx);
    const auto x1 = op.optional_input("x1Optional", x1_in),
               x2 = op.optional_input("x2Optional", x2_in),
               bias = op.optional_input("biasOptional", bias_in),
               scales = op.optional_input("scalesOptional", scales_in),
               expert = op.optional_input("expertIdxOptional", expert_idx);
    const Tensor y = op.output("out", out);
    require_float(op, "expandedX", x);
    op.require(drop_pad_mode >= 0 && drop_pad_mode <= 3, "dropPadMode must be 0 to 3");
    const bool drop = drop_pad_mode % 2 == 1, by_token = drop_pad_mode >= 2;
    op.require_rank("expandedX", x, drop ? 3 : 2, drop ? 3 : 2);
    op.require_same_type("expandedX", x, "out", y);
    op.require_rank("out", y, 2, 2);
    const int64_t hidden = x.dim(-1), tokens = y.dim(0);
    op.require(y.dim(1) == hidden, "out has not the hidden size of expandedX");
    op.require_type("expandedRowIdx", row_of, {ACL_INT32});
    const int64_t k = scales && scales->rank() == 2 ? scales->dim(1) : 1;
    op.require_shape("expandedRowIdx", row_of, {tokens * k});
    if (!drop) op.require(x.dim(0) == tokens * k, "expandedX has not NUM_ROWS * K rows");
    if (scales) {
      op.require_shape("scalesOptional", *scales, {tokens, k});
      op.require(scales->dtype == x.dtype || (x.dtype == ACL_BF16 && scales->dtype == ACL_FLOAT),
                 "scales must be of expandedX's type, or FLOAT beside BFLOAT16");
    }
    op.require(!x2 || x1, "x2 needs x1");
    op.require(!bias || expert, "bias needs expertIdx");
    for (const auto* t : {&x1, &x2})
      if (*t) {
        op.require_same_type("expandedX", x, "x1, x2", **t);
        op.require_shape("x1, x2", **t, y.shape);
      }
    if (bias) {
      op.require_same_type("expandedX", x, "biasOptional", *bias);
      op.require_rank("biasOptional", *bias, 2, 2);
      op.require(bias->dim(1) == hidden, "bias has not the hidden size");
    }
    if (expert) {
      op.require_type("expertIdxOptional", *expert, {ACL_INT32});
      op.require_shape("expertIdxOptional", *expert, {tokens, k});
    }
    op.launch([=](Launch& at) {
      const std::vector<int64_t> rows =
          row_indices(at, row_of, x.elements() / std::max<int64_t>(hidden, 1), true);
      std::vector<float> scale = scales ? floats(view(*scales)) : std::vector<float>();
      const int64_t added = at.reduction(k);
      if (defect("finalize_no_scales")) std::fill(scale.begin(), scale.end(), 1.0f);
      const std::vector<int64_t> experts = bias ? integers(view(*expert)) : std::vector<int64_t>();
      for (int64_t e : experts)
        if (e < 0 || e >= bias->dim(0)) at.fault(code::kVectorCoreException, "expert out of range");
      const RowsOf from(x, hidden), to(y, hidden);
      in_rows(tokens, [&](int64_t first, int64_t last) {
        std::vector<float> total(static_cast<size_t>(hidden)), one = total, more = total;
        for (int64_t t = first; t < last; ++t) {
          std::fill(total.begin(), total.end(), 0.0f);
          for (const auto* shared : {&x1, &x2}) {
            if (!*shared) continue;
            RowsOf(**shared, hidden).get(t, one.data());
            for (size_t i = 0; i < total.size(); ++i) total[i] += one[i];
          }
          for (int64_t j = 0; j < added; ++j) {
            const int64_t row = rows[static_cast<size_t>(by_token ? t * k + j : j * tokens + t)];
            if (row < 0) continue;  // dropped
            from.get(row, one.data());
            if (bias) {
              RowsOf(*bias, hidden).get(experts[static_cast<size_t>(t * k + j)], more.data());
              for (size_t i = 0; i < total.size(); ++i) one[i] += more[i];
            }
            const float s = scale.empty() ? 1.0f : scale[static_cast<size_t>(t * k + j)];
            for (size_t i = 0; i < total.size(); ++i) total[i] += s * one[i];
          }
          to.set(t, total.data());
        }
      });
    });
  });
}

ASCEND_DEFECT(finalize_grad_shifted_scales,
              "MoeFinalizeRoutingV2Grad",
              "a row takes the scale of the row before")

ASCEND_OP(MoeFinalizeRoutingV2Grad,
          const aclTensor* grad_y,
          const aclTensor* expanded_row_idx,
          const aclTensor* expanded_x,
          const aclTensor* scales_in,
          const aclTensor* expert_idx,
          const aclTensor* bias_in,
          int64_t drop_pad_mode,
          int64_t active_num,
          int64_t expert_num,
          int64_t expert_capacity,
          const aclTensor* grad_expanded_x_out,
          const aclTensor* grad_scales_out) {
  return plan("MoeFinalizeRoutingV2Grad", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor grad = op.input("gradY", grad_y),
                 row_of = op.input("expandedRowIdx", expanded_row_idx);
    const auto x = op.optional_input("expandedXOptional", expanded_x),
               scales = op.optional_input("scalesOptional", scales_in),
               expert = op.optional_input("expertIdxOptional", expert_idx),
               bias = op.optional_input("biasOptional", bias_in);
    const Tensor dx = op.output("gradExpandedXOut", grad_expanded_x_out);
    std::optional<Tensor> dscales;
    if (scales) dscales = op.output("gradScalesOut", grad_scales_out);
    require_float(op, "gradY", grad);
    op.require_rank("gradY", grad, 2, 2);
    const int64_t tokens = grad.dim(0), hidden = grad.dim(1);
    op.require_type("expandedRowIdx", row_of, {ACL_INT32});
    op.require_rank("expandedRowIdx", row_of, 1, 1);
    const int64_t k = scales ? row_of.elements() / std::max<int64_t>(tokens, 1) : 1;
    op.require(row_of.elements() == tokens * k, "expandedRowIdx has not R * K entries");
    op.require(drop_pad_mode == 0 || drop_pad_mode == 1, "dropPadMode must be 0 or 1");
    op.require(!scales || x, "expandedX is needed with scales");
    op.require(!bias || (expert && scales), "bias needs expertIdx and scales");
    op.require(drop_pad_mode == 0 || (expert_num > 0 && expert_capacity > 0),
               "dropPadMode 1 needs expertNum and expertCapacity");
    const int64_t all = tokens * k;
    const int64_t active = active_num > 0 && active_num < all ? active_num : all;
    const Shape shape =
        drop_pad_mode == 1 ? Shape{expert_num, expert_capacity, hidden} : Shape{active, hidden};
    op.require_same_type("gradY", grad, "gradExpandedXOut", dx);
    op.require_shape("gradExpandedXOut", dx, shape);
    if (x) {
      op.require_same_type("gradY", grad, "expandedXOptional", *x);
      op.require_shape("expandedXOptional", *x, shape);
    }
    if (scales) {
      op.require_same_type("gradY", grad, "scalesOptional", *scales);
      op.require_shape("scalesOptional", *scales, {tokens, k});
      op.require_same_type("scalesOptional", *scales, "gradScalesOut", *dscales);
      op.require_shape("gradScalesOut", *dscales, {tokens, k});
    }
    if (bias) {
      op.require_same_type("gradY", grad, "biasOptional", *bias);
      op.require_rank("biasOptional", *bias, 2, 2);
      op.require_shape("expertIdxOptional", *expert, {tokens, k});
    }
    op.launch([=](Launch& at) {
      const int64_t count = element_count(shape) / std::max<int64_t>(hidden, 1);
      const std::vector<int64_t> rows = row_indices(at, row_of, count, false);
      const std::vector<float> scale = scales ? floats(view(*scales)) : std::vector<float>();
      const std::vector<int64_t> experts = bias ? integers(view(*expert)) : std::vector<int64_t>();
      const bool shifted = defect("finalize_grad_shifted_scales");
      const Order order{at.order(tokens)};
      const RowsOf to(dx, hidden);
      if (drop_pad_mode == 1) {  // rows that no token fills
        const std::vector<float> none(static_cast<size_t>(hidden), 0.0f);
        for (int64_t r = 0; r < count; ++r) to.set(r, none.data());
      }
      in_rows(tokens, [&](int64_t first, int64_t last) {
        std::vector<float> g(static_cast<size_t>(hidden)), one = g, more = g;
        for (int64_t t = first; t < last; ++t) {
          RowsOf(grad, hidden).get(t, g.data());
          for (int64_t j = 0; j < k; ++j) {
            const auto p = static_cast<size_t>(t * k + j);
            float share = 0;
            if (rows[p] >= 0) {
              const float s = scale.empty() ? 1.0f : scale[shifted && p > 0 ? p - 1 : p];
              for (size_t i = 0; i < g.size(); ++i) one[i] = g[i] * s;
              to.set(rows[p], one.data());
              if (scales) {
                RowsOf(*x, hidden).get(rows[p], one.data());
                if (bias) {
                  RowsOf(*bias, hidden).get(experts[p], more.data());
                  for (size_t i = 0; i < one.size(); ++i) one[i] += more[i];
                }
                share = dot(one.data(), g.data(), hidden, order);
              }
            }
            if (dscales) write(view(*dscales), static_cast<int64_t>(p), 1, &share);
          }
        }
      });
    });
  });
}

// --- MoeTokenPermute and its family
// ---------------------------------------------------------------

ASCEND_DEFECT(permute_drops_token,
              "MoeTokenPermute",
              "the last permuted row repeats the one before")

// sortedIndicesOut[token * topK + j] is the row of permuteTokensOut that holds the token for its
// j-th expert. (The documents' formula for the rows names the inverse; the ops that follow, which
// gather by sortedIndices, agree with this reading.)
ASCEND_OP(MoeTokenPermute,
          const aclTensor* tokens_in,
          const aclTensor* indices_in,
          int64_t num_out_tokens,
          bool padded_mode,
          const aclTensor* permute_tokens_out,
          const aclTensor* sorted_indices_out) {
  return plan("MoeTokenPermute", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor tokens = op.input("tokens", tokens_in), indices = op.input("indices", indices_in);
    const Tensor rows = op.output("permuteTokensOut", permute_tokens_out),
                 sorted = op.output("sortedIndicesOut", sorted_indices_out);
    require_float(op, "tokens", tokens);
    op.require(tokens.rank() >= 2, "tokens must have two dimensions or more");
    require_index(op, "indices", indices);
    op.require_rank("indices", indices, 1, 2);
    op.require(!padded_mode, "paddedMode must be false");
    const int64_t all = indices.elements();
    const int64_t k = indices.rank() == 2 ? indices.dim(1) : 1;
    op.require(indices.dim(0) == tokens.dim(0), "indices has not a row for each token");
    op.require(k <= 512 && all < 16777215, "too many indices");
    const int64_t kept = num_out_tokens == 0  ? all
                         : num_out_tokens < 0 ? std::max<int64_t>(all + num_out_tokens, 0)
                                              : std::min(all, num_out_tokens);
    const int64_t hidden = tokens.elements() / std::max<int64_t>(tokens.dim(0), 1);
    op.require_same_type("tokens", tokens, "permuteTokensOut", rows);
    op.require(rows.rank() >= 2 && rows.dim(0) == kept && rows.elements() == kept * hidden,
               "permuteTokensOut " + to_string(rows.shape) + " has not " + std::to_string(kept) +
                   " rows of " + std::to_string(hidden));
    op.require_type("sortedIndicesOut", sorted, {ACL_INT32});
    op.require_shape("sortedIndicesOut", sorted, {all});
    op.workspace(1024 + static_cast<uint64_t>(all) * 16);
    op.launch([=](Launch&) {
      const std::vector<int64_t> order = sorted_positions(integers(view(indices)));
      std::vector<int64_t> row(order.size());
      for (size_t i = 0; i < order.size(); ++i)
        row[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
      write(view(sorted), 0, all, row.data());
      const bool dropped = defect("permute_drops_token") && kept > 1;
      const RowsOf from(tokens, hidden), to(rows, hidden);
      in_rows(kept, [&](int64_t first, int64_t last) {
        std::vector<float> one(static_cast<size_t>(hidden));
        for (int64_t r = first; r < last; ++r) {
          const int64_t source = dropped && r == kept - 1 ? r - 1 : r;
          from.get(order[static_cast<size_t>(source)] / k, one.data());
          to.set(r, one.data());
        }
      });
    });
  });
}

ASCEND_OP(MoeTokenPermuteGrad,
          const aclTensor* grad_in,
          const aclTensor* sorted_indices,
          int64_t num_topk,
          bool padded_mode,
          aclTensor* out) {
  return plan("MoeTokenPermuteGrad", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor grad = op.input("permutedOutputGrad", grad_in),
                 sorted = op.input("sortedIndices", sorted_indices);
    const Tensor y = op.output("out", out);
    require_float(op, "permutedOutputGrad", grad);
    op.require_rank("permutedOutputGrad", grad, 2, 2);
    op.require_type("sortedIndices", sorted, {ACL_INT32});
    op.require_rank("sortedIndices", sorted, 1, 1);
    op.require(!padded_mode, "paddedMode must be false");
    op.require(num_topk > 0 && num_topk <= 512 && sorted.elements() % num_topk == 0,
               "numTopk does not divide sortedIndices");
    op.require_same_type("permutedOutputGrad", grad, "out", y);
    op.require_shape("out", y, {sorted.elements() / num_topk, grad.dim(1)});
    op.launch([=](Launch& at) {
      gather_rows(grad, row_indices(at, sorted, grad.dim(0), false), {}, num_topk, grad.dim(1), y);
    });
  });
}

ASCEND_OP(MoeTokenUnpermute,
          const aclTensor* permuted_tokens,
          const aclTensor* sorted_indices,
          const aclTensor* probs_in,
          bool padded_mode,
          const aclIntArray* restore_shape,
          aclTensor* out) {
  return plan("MoeTokenUnpermute", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("permutedTokens", permuted_tokens),
                 sorted = op.input("sortedIndices", sorted_indices);
    const std::optional<Tensor> probs = op.optional_input("probsOptional", probs_in);
    const Tensor y = op.output("out", out);
    require_float(op, "permutedTokens", x);
    op.require_rank("permutedTokens", x, 2, 2);
    op.require_type("sortedIndices", sorted, {ACL_INT32});
    op.require_rank("sortedIndices", sorted, 1, 1);
    op.require(!padded_mode && !restore_shape, "paddedMode must be false, restoreShape null");
    const int64_t k = probs ? probs->dim(-1) : 1;
    op.require(k >= 1 && k <= 512 && sorted.elements() % k == 0, "probs do not fit sortedIndices");
    const int64_t tokens = sorted.elements() / k;
    if (probs) {
      require_float(op, "probsOptional", *probs);
      op.require_shape("probsOptional", *probs, {tokens, k});
    }
    op.require_same_type("permutedTokens", x, "out", y);
    op.require_shape("out", y, {tokens, x.dim(1)});
    op.launch([=](Launch& at) {
      const std::vector<float> weights = probs ? floats(view(*probs)) : std::vector<float>();
      gather_rows(x, row_indices(at, sorted, x.dim(0), false), weights, k, x.dim(1), y);
    });
  });
}

ASCEND_OP(MoeTokenUnpermuteGrad,
          const aclTensor* permute_tokens,
          const aclTensor* unpermuted_tokens_grad,
          const aclTensor* sorted_indices,
          const aclTensor* probs_in,
          bool padded_mode,
          const aclIntArray* restore_shape,
          aclTensor* permuted_tokens_grad_out,
          aclTensor* probs_grad_out) {
  return plan("MoeTokenUnpermuteGrad", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor x = op.input("permuteTokens", permute_tokens),
                 grad = op.input("unpermutedTokensGrad", unpermuted_tokens_grad),
                 sorted = op.input("sortedIndices", sorted_indices);
    const std::optional<Tensor> probs = op.optional_input("probsOptional", probs_in);
    const Tensor dx = op.output("permutedTokensGradOut", permuted_tokens_grad_out);
    std::optional<Tensor> dprobs;
    if (probs) dprobs = op.output("probsGradOut", probs_grad_out);
    require_float(op, "permuteTokens", x);
    op.require_rank("permuteTokens", x, 2, 2);
    op.require_same_type("permuteTokens", x, "unpermutedTokensGrad", grad);
    op.require_same_type("permuteTokens", x, "permutedTokensGradOut", dx);
    op.require_shape("permutedTokensGradOut", dx, x.shape);
    op.require_type("sortedIndices", sorted, {ACL_INT32});
    op.require_rank("sortedIndices", sorted, 1, 1);
    op.require(!padded_mode && !restore_shape, "paddedMode must be false, restoreShape null");
    const int64_t k = probs ? probs->dim(-1) : 1, hidden = x.dim(1);
    op.require(k >= 1 && k <= 512 && sorted.elements() % k == 0, "probs do not fit sortedIndices");
    const int64_t tokens = sorted.elements() / k;
    op.require_shape("unpermutedTokensGrad", grad, {tokens, hidden});
    if (probs) {
      require_float(op, "probsOptional", *probs);
      op.require_shape("probsOptional", *probs, {tokens, k});
      op.require_same_type("probsOptional", *probs, "probsGradOut", *dprobs);
      op.require_shape("probsGradOut", *dprobs, {tokens, k});
    }
    op.launch([=](Launch& at) {
      const std::vector<int64_t> rows = row_indices(at, sorted, x.dim(0), false);
      const std::vector<float> weights = probs ? floats(view(*probs)) : std::vector<float>();
      const Order order{at.order(tokens)};
      const RowsOf from(x, hidden), to(dx, hidden), above(grad, hidden);
      in_rows(tokens, [&](int64_t first, int64_t last) {
        std::vector<float> g(static_cast<size_t>(hidden)), one(static_cast<size_t>(hidden));
        for (int64_t t = first; t < last; ++t) {
          above.get(t, g.data());
          for (int64_t j = 0; j < k; ++j) {
            const auto p = static_cast<size_t>(t * k + j);
            float share = 0;
            if (rows[p] >= 0) {
              if (dprobs) {
                from.get(rows[p], one.data());
                share = dot(one.data(), g.data(), hidden, order);
              }
              const float w = weights.empty() ? 1.0f : weights[p];
              for (size_t i = 0; i < g.size(); ++i) one[i] = g[i] * w;
              to.set(rows[p], one.data());
            }
            if (dprobs) write(view(*dprobs), static_cast<int64_t>(p), 1, &share);
          }
        }
      });
    });
  });
}
