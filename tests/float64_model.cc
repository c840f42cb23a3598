#include "float64_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ferry {
namespace {

using models::deepseek_v3::Config;
using models::deepseek_v3::Scoring;
using models::deepseek_v3::TopK;
using Rows = std::vector<Values>;  // one vector a token

Values product(const Values& w, const Values& x, size_t first_row = 0, size_t rows = 0) {
  const size_t in = x.size();
  if (rows == 0) rows = w.size() / in;
  Values y(rows, 0.0);
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 0; i < in; ++i) y[r] += w[(first_row + r) * in + i] * x[i];
  return y;
}

Values normed(const Values& x, const Values& w, double eps) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  const double r = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  Values y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * r * w[i];
  return y;
}

Values plus(Values a, const Values& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

/// -log softmax(logits)[label]
double surprise(const Values& logits, int32_t label) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double l : logits) sum += std::exp(l - max);
  return std::log(sum) + max - logits[static_cast<size_t>(label)];
}

class Run {
 public:
  explicit Run(const Float64Model& m) : c_(m.config), w_(m.weights) {}

  void document(const std::vector<int32_t>& tokens) {
    Rows h;
    for (const int32_t t : tokens) h.push_back(embedding(t));
    for (int64_t l = 0; l < c_.num_hidden_layers; ++l) h = layer(l, h, c_.is_moe(l));
    const size_t n = tokens.size();
    for (size_t t = 0; t + 1 < n; ++t, ++labels)
      main += surprise(product(head(), normed(h[t], w("model.norm.weight"), c_.rms_norm_eps)),
                       tokens[t + 1]);
    if (c_.num_nextn_predict_layers == 0) return;
    const std::string name = "model.layers." + std::to_string(c_.num_hidden_layers) + ".";
    Rows x;
    for (size_t t = 0; t < n; ++t) {
      // Past the document's end there is no next token: id 0 stands there, and nothing is scored.
      Values both = normed(
          embedding(t + 1 < n ? tokens[t + 1] : 0), w(name + "enorm.weight"), c_.rms_norm_eps);
      const Values previous = normed(h[t], w(name + "hnorm.weight"), c_.rms_norm_eps);
      both.insert(both.end(), previous.begin(), previous.end());
      x.push_back(product(w(name + "eh_proj.weight"), both));
    }
    x = layer(c_.num_hidden_layers, x, c_.n_routed_experts > 0);
    for (size_t t = 0; t + 2 < n; ++t, ++mtp_labels)
      mtp += surprise(
          product(head(), normed(x[t], w(name + "shared_head.norm.weight"), c_.rms_norm_eps)),
          tokens[t + 2]);
  }

  double main = 0, mtp = 0, balance = 0;
  int64_t labels = 0, mtp_labels = 0;

 private:
  const Values& w(const std::string& name) const { return w_.at(name); }
  const Values& head() const {
    return w(c_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  }
  Values embedding(int32_t id) const {
    const Values& e = w("model.embed_tokens.weight");
    const auto d = static_cast<long>(c_.hidden_size);
    return {e.begin() + id * d, e.begin() + (id + 1) * d};
  }

  Rows layer(int64_t index, const Rows& h, bool moe_layer) {
    const std::string name = "model.layers." + std::to_string(index) + ".";
    Rows x, out;
    for (const Values& v : h)
      x.push_back(normed(v, w(name + "input_layernorm.weight"), c_.rms_norm_eps));
    const Rows attended = attention(name + "self_attn.", x);
    Rows a, y;
    for (size_t t = 0; t < h.size(); ++t) {
      a.push_back(plus(h[t], attended[t]));
      y.push_back(normed(a[t], w(name + "post_attention_layernorm.weight"), c_.rms_norm_eps));
    }
    const Rows ff = moe_layer ? moe(name + "mlp.", y) : Rows{};
    for (size_t t = 0; t < h.size(); ++t)
      out.push_back(
          plus(a[t],
               moe_layer ? ff[t]
                         : mlp(name + "mlp.", y[t], 0, static_cast<size_t>(c_.intermediate_size))));
    return out;
  }

  double frequency(int64_t pair) const {
    const double d = static_cast<double>(c_.qk_rope_head_dim);
    const double f = std::pow(c_.rope.theta, -2.0 * static_cast<double>(pair) / d);
    if (!yarn()) return f;
    const auto correction = [&](double rotations) {
      return d *
             std::log(static_cast<double>(c_.rope.original_max_position) / (rotations * 2 * M_PI)) /
             (2 * std::log(c_.rope.theta));
    };
    const double low = std::max(std::floor(correction(c_.rope.beta_fast)), 0.0);
    double high = std::min(std::ceil(correction(c_.rope.beta_slow)), d - 1);
    if (low == high) high += 0.001;
    const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
    return f / c_.rope.factor * ramp + f * (1 - ramp);
  }

  bool yarn() const { return c_.rope.scaling == ops::RopeScaling::kYarn; }
  double yarn_m(double mscale) const {
    return yarn() && c_.rope.factor > 1 ? 0.1 * mscale * std::log(c_.rope.factor) + 1 : 1;
  }

  void rotate(double* x, double position) const {
    const double m = yarn() ? yarn_m(c_.rope.mscale) / yarn_m(c_.rope.mscale_all_dim) : 1;
    for (int64_t p = 0; p < c_.qk_rope_head_dim / 2; ++p) {
      const double angle = position * frequency(p), cosine = std::cos(angle) * m,
                   sine = std::sin(angle) * m;
      const double a = x[2 * p], b = x[2 * p + 1];
      x[2 * p] = a * cosine - b * sine;
      x[2 * p + 1] = a * sine + b * cosine;
    }
  }

  Rows attention(const std::string& name, const Rows& x) {
    const auto heads = static_cast<size_t>(c_.num_attention_heads),
               nope = static_cast<size_t>(c_.qk_nope_head_dim);
    const auto rope = static_cast<size_t>(c_.qk_rope_head_dim),
               vd = static_cast<size_t>(c_.v_head_dim);
    const auto latent = static_cast<size_t>(c_.kv_lora_rank);
    Rows q, kv, pe, out;
    for (size_t t = 0; t < x.size(); ++t) {
      const Values full = c_.q_lora_rank > 0
                              ? product(w(name + "q_b_proj.weight"),
                                        normed(product(w(name + "q_a_proj.weight"), x[t]),
                                               w(name + "q_a_layernorm.weight"),
                                               1e-6))
                              : product(w(name + "q_proj.weight"), x[t]);
      q.push_back(full);
      for (size_t h = 0; h < heads; ++h)
        rotate(&q[t][h * (nope + rope) + nope], static_cast<double>(t));
      Values ckv = product(w(name + "kv_a_proj_with_mqa.weight"), x[t]);
      pe.emplace_back(ckv.begin() + static_cast<long>(latent), ckv.end());
      rotate(pe[t].data(), static_cast<double>(t));
      ckv.resize(latent);
      kv.push_back(product(w(name + "kv_b_proj.weight"),
                           normed(ckv, w(name + "kv_a_layernorm.weight"), 1e-6)));
    }
    const double m = yarn() ? yarn_m(c_.rope.mscale_all_dim) : 1;
    const double scale = m * m / std::sqrt(static_cast<double>(nope + rope));
    for (size_t t = 0; t < x.size(); ++t) {
      Values o(heads * vd, 0.0);
      for (size_t h = 0; h < heads; ++h) {
        const double* query = &q[t][h * (nope + rope)];
        Values s(t + 1, 0.0);
        for (size_t j = 0; j <= t; ++j) {
          for (size_t i = 0; i < nope; ++i) s[j] += query[i] * kv[j][h * (nope + vd) + i];
          for (size_t i = 0; i < rope; ++i) s[j] += query[nope + i] * pe[j][i];
          s[j] *= scale;
        }
        const double max = *std::max_element(s.begin(), s.end());
        double sum = 0;
        for (double& v : s) sum += v = std::exp(v - max);
        for (size_t j = 0; j <= t; ++j)
          for (size_t i = 0; i < vd; ++i)
            o[h * vd + i] += s[j] / sum * kv[j][h * (nope + vd) + nope + i];
      }
      out.push_back(product(w(name + "o_proj.weight"), o));
    }
    return out;
  }

  /// One gated MLP; of stacked experts the one whose matrices begin at row expert * inner.
  Values mlp(const std::string& name, const Values& x, size_t expert, size_t inner) const {
    Values gate = product(w(name + "gate_proj.weight"), x, expert * inner, inner);
    const Values up = product(w(name + "up_proj.weight"), x, expert * inner, inner);
    for (size_t i = 0; i < inner; ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    return product(w(name + "down_proj.weight"), gate, expert * x.size(), x.size());
  }

  Rows moe(const std::string& name, const Rows& x) {
    const auto experts = static_cast<size_t>(c_.n_routed_experts),
               k = static_cast<size_t>(c_.num_experts_per_tok);
    const size_t groups = c_.topk_method == TopK::kGreedy ? 1 : static_cast<size_t>(c_.n_group);
    const size_t kept = c_.topk_method == TopK::kGreedy ? 1 : static_cast<size_t>(c_.topk_group),
                 size = experts / groups;
    Rows out;
    Values chosen_count(experts, 0.0), share(experts, 0.0);
    for (const Values& v : x) {
      Values s = product(w(name + "gate.weight"), v);
      if (c_.scoring_func == Scoring::kSigmoid) {
        for (double& e : s) e = 1 / (1 + std::exp(-e));
      } else {
        const double max = *std::max_element(s.begin(), s.end());
        double sum = 0;
        for (double& e : s) sum += e = std::exp(e - max);
        for (double& e : s) e /= sum;
      }
      Values biased = s;
      if (c_.topk_method == TopK::kNoAuxTc)
        biased = plus(biased, w(name + "gate.e_score_correction_bias"));
      std::vector<std::pair<double, size_t>> group_scores;
      for (size_t g = 0; g < groups; ++g) {
        Values members(biased.begin() + static_cast<long>(g * size),
                       biased.begin() + static_cast<long>((g + 1) * size));
        std::sort(members.rbegin(), members.rend());
        const bool two = c_.topk_method == TopK::kNoAuxTc && size > 1;
        group_scores.emplace_back(-(two ? members[0] + members[1] : members[0]), g);
      }
      std::sort(group_scores.begin(), group_scores.end());
      std::vector<std::pair<double, size_t>> candidates;
      for (size_t g = 0; g < kept; ++g)
        for (size_t e = group_scores[g].second * size; e < (group_scores[g].second + 1) * size; ++e)
          candidates.emplace_back(-biased[e], e);
      std::sort(candidates.begin(), candidates.end());
      double sum = 0;
      for (size_t j = 0; j < k; ++j) sum += s[candidates[j].second];
      Values y(v.size(), 0.0);
      for (size_t j = 0; j < k; ++j) {
        const size_t e = candidates[j].second;
        const double weight = s[e] / (c_.norm_topk_prob ? sum : 1) * c_.routed_scaling_factor;
        const Values one =
            mlp(name + "experts.*.", v, e, static_cast<size_t>(c_.moe_intermediate_size));
        for (size_t i = 0; i < y.size(); ++i) y[i] += weight * one[i];
        chosen_count[e] += 1;
      }
      const double total = std::accumulate(s.begin(), s.end(), 0.0);
      for (size_t e = 0; e < experts; ++e) share[e] += s[e] / total;
      if (c_.n_shared_experts > 0)
        y = plus(y,
                 mlp(name + "shared_experts.",
                     v,
                     0,
                     static_cast<size_t>(c_.n_shared_experts * c_.moe_intermediate_size)));
      out.push_back(y);
    }
    const double tokens = static_cast<double>(x.size());
    for (size_t e = 0; e < experts; ++e)
      balance += static_cast<double>(experts) / (static_cast<double>(k) * tokens) *
                 chosen_count[e] * share[e] / tokens;
    return out;
  }

  const Config& c_;
  const std::map<std::string, Values>& w_;
};

}  // namespace

Float64Losses Float64Model::losses(const std::vector<std::vector<int32_t>>& documents) const {
  Run run(*this);
  for (const auto& d : documents) run.document(d);
  Float64Losses l;
  l.main = run.main / static_cast<double>(run.labels);
  if (run.mtp_labels > 0) l.mtp = run.mtp / static_cast<double>(run.mtp_labels);
  l.balance = run.balance / static_cast<double>(documents.size());
  return l;
}

}  // namespace ferry
