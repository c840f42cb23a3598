#include "train/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

// The only place that includes it: it takes seconds to compile.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "base/check.h"
#include "base/file.h"

namespace ferry {
namespace {

using Value =
    std::variant<std::monostate, int64_t, double, bool, std::string>;  // monostate: not set
using Target = std::variant<int64_t*,
                            double*,
                            bool*,
                            std::string*,
                            std::optional<int64_t>*,
                            std::optional<double>*,
                            std::optional<bool>*,
                            std::optional<std::string>*>;

struct Bounds {
  double least = -1e300;
  double most = 1e300;
  bool above = false;  // `least` itself is out
};

struct Field {
  const char* section;
  const char* key;
  Target target;
  const char* meaning;
  const char* unit = "";
  Bounds bounds = {};
  std::vector<std::string> choices = {};
  std::string path() const { return fmt::format("{}.{}", section, key); }
};

constexpr Bounds kCount{0, 1e9}, kSize{1, 1e6}, kMany{1, 1e12}, kPart{0, 1};
constexpr Bounds kPositive{0, 1e300, true};

/// The list. Everything else in this file walks it.
std::vector<Field> fields_of(Settings& s) {
  ModelSettings& m = s.model;
  RopeScalingSettings& r = m.rope_scaling;
  DataSettings& d = s.data;
  TrainSettings& t = s.train;
  OptimizerConfig& o = s.optimizer;
  ScheduleSettings& h = s.schedule;
  CheckpointSettings& c = s.checkpoint;
  LogSettings& l = s.log;
  return {
      {"model", "preset", &m.preset, "a built-in architecture; fields below replace its own"},
      {"model",
       "config",
       &m.config,
       "path of a config.json with the architecture; fields below replace its own"},
      {"model", "init", &m.init, "model directory whose weights and architecture to start from"},
      {"model", "vocab_size", &m.vocab_size, "entries of the embedding", "tokens", {1, 1 << 24}},
      {"model", "hidden_size", &m.hidden_size, "width of the residual stream", "", kSize},
      {"model",
       "num_hidden_layers",
       &m.num_hidden_layers,
       "transformer layers, without MTP modules",
       "layers",
       {1, 1000}},
      {"model",
       "num_nextn_predict_layers",
       &m.num_nextn_predict_layers,
       "MTP modules after the last layer",
       "layers",
       {0, 8}},
      {"model", "num_attention_heads", &m.num_attention_heads, "attention heads", "", {1, 4096}},
      {"model",
       "q_lora_rank",
       &m.q_lora_rank,
       "rank of the query's down-projection; 0: none",
       "",
       {0, 1e6}},
      {"model", "kv_lora_rank", &m.kv_lora_rank, "rank of the shared key/value latent", "", kSize},
      {"model",
       "qk_nope_head_dim",
       &m.qk_nope_head_dim,
       "query/key elements of a head without position",
       "",
       kSize},
      {"model",
       "qk_rope_head_dim",
       &m.qk_rope_head_dim,
       "query/key elements of a head with RoPE; even",
       "",
       {2, 1e6}},
      {"model", "v_head_dim", &m.v_head_dim, "value elements of a head", "", kSize},
      {"model",
       "intermediate_size",
       &m.intermediate_size,
       "inner width of dense layers",
       "",
       kSize},
      {"model",
       "moe_intermediate_size",
       &m.moe_intermediate_size,
       "inner width of one expert",
       "",
       kSize},
      {"model",
       "first_k_dense_replace",
       &m.first_k_dense_replace,
       "the first so many layers are dense",
       "layers",
       {0, 1000}},
      {"model",
       "moe_layer_freq",
       &m.moe_layer_freq,
       "every so many-th layer has experts",
       "layers",
       {1, 1000}},
      {"model",
       "n_routed_experts",
       &m.n_routed_experts,
       "experts that tokens choose from",
       "",
       {1, 65536}},
      {"model",
       "n_shared_experts",
       &m.n_shared_experts,
       "experts that every token passes",
       "",
       {0, 1024}},
      {"model",
       "num_experts_per_tok",
       &m.num_experts_per_tok,
       "routed experts for each token",
       "",
       {1, 1024}},
      {"model", "n_group", &m.n_group, "groups of experts", "", {1, 4096}},
      {"model", "topk_group", &m.topk_group, "groups that a token may choose from", "", {1, 4096}},
      {"model",
       "topk_method",
       &m.topk_method,
       "how experts are chosen",
       "",
       {},
       {"noaux_tc", "greedy", "group_limited_greedy"}},
      {"model", "scoring_func", &m.scoring_func, "gate", "", {}, {"sigmoid", "softmax"}},
      {"model",
       "norm_topk_prob",
       &m.norm_topk_prob,
       "whether the chosen gates are made to sum to 1"},
      {"model",
       "routed_scaling_factor",
       &m.routed_scaling_factor,
       "factor of the routed experts' sum",
       "",
       kPositive},
      {"model", "rms_norm_eps", &m.rms_norm_eps, "epsilon of the norms", "", {0, 1, true}},
      {"model", "rope_theta", &m.rope_theta, "base of RoPE's wavelengths", "", {1, 1e12, true}},
      {"model",
       "max_position_embeddings",
       &m.max_position_embeddings,
       "longest context",
       "tokens",
       {1, 1e9}},
      {"model",
       "initializer_range",
       &m.initializer_range,
       "standard deviation of fresh weights",
       "",
       {0, 10, true}},
      {"model", "tie_word_embeddings", &m.tie_word_embeddings, "whether the head is the embedding"},
      {"model.rope_scaling", "type", &r.type, "how RoPE is stretched", "", {}, {"yarn"}},
      {"model.rope_scaling",
       "factor",
       &r.factor,
       "context length over the original one",
       "",
       {1, 1e6}},
      {"model.rope_scaling",
       "original_max_position_embeddings",
       &r.original_max_position_embeddings,
       "context before stretching",
       "tokens",
       {1, 1e9}},
      {"model.rope_scaling",
       "beta_fast",
       &r.beta_fast,
       "turns above which a pair keeps its wavelength",
       "",
       kPositive},
      {"model.rope_scaling",
       "beta_slow",
       &r.beta_slow,
       "turns below which a pair is stretched whole",
       "",
       kPositive},
      {"model.rope_scaling", "mscale", &r.mscale, "attention temperature of RoPE", "", {0, 100}},
      {"model.rope_scaling",
       "mscale_all_dim",
       &r.mscale_all_dim,
       "attention temperature of every element",
       "",
       {0, 100}},

      {"data", "dir", &d.dir, "folder that `ferry data prepare` wrote"},
      {"data",
       "sequence_length",
       &d.sequence_length,
       "tokens of one row of packed documents",
       "tokens",
       {2, 1e7}},

      {"train", "steps", &t.steps, "updates of the weights", "steps", {1, 1e9}},
      {"train",
       "tokens_per_step",
       &t.tokens_per_step,
       "global batch; a multiple of micro_batch_tokens",
       "tokens",
       kMany},
      {"train",
       "micro_batch_tokens",
       &t.micro_batch_tokens,
       "computed at once; a multiple of data.sequence_length. Part of the numerics",
       "tokens",
       {1, 1e9}},
      {"train",
       "seed",
       &t.seed,
       "of fresh weights and of the order of documents",
       "",
       {0, 9007199254740992.0}},
      {"train",
       "compute",
       &t.compute,
       "type of activations and matrix products; master weights are f32",
       "",
       {},
       {"bf16", "f32"}},
      {"train",
       "mla_form",
       &t.mla_form,
       "how attention is computed; part of the numerics",
       "",
       {},
       {"expanded", "absorbed"}},
      {"train",
       "recompute",
       &t.recompute,
       "what is computed again for the gradient instead of kept: none (fastest), cheap (what cheap "
       "ops gave: a fifth "
       "less memory, 5 % slower), layers (all but each layer's input: least memory, a third more "
       "work)",
       "",
       {},
       {"none", "cheap", "layers"}},
      {"train", "device", &t.device, "chip: cpu, cuda, cuda:1, ascend:0"},
      {"train",
       "threads",
       &t.threads,
       "of the CPU; 0: one for each processor. Never changes results",
       "threads",
       {0, 4096}},
      {"train", "clip", &t.clip, "largest norm of the gradient; 0: any", "", {0, 1e9}},
      {"train", "mtp_weight", &t.mtp_weight, "of the MTP modules' loss", "", {0, 100}},
      {"train",
       "mtp_every",
       &t.mtp_every,
       "the MTP modules are trained in every so many-th step; in a small model they cost a third",
       "steps",
       {1, 1e9}},
      {"train",
       "balance_alpha",
       &t.balance_alpha,
       "of the sequence-wise balance loss",
       "",
       {0, 100}},
      {"train",
       "bias_update_speed",
       &t.bias_update_speed,
       "change of the router's selection bias in a step",
       "",
       {0, 1}},
      {"train",
       "evaluate_every",
       &t.evaluate_every,
       "held-out loss every so many steps; 0: only at the end",
       "steps",
       kCount},
      {"train", "evaluate_tokens", &t.evaluate_tokens, "held-out tokens for it", "tokens", kMany},
      {"train",
       "skip_loss_z",
       &t.skip_loss_z,
       "refuse an update whose loss lies so many deviations out; 0: never",
       "",
       {0, 1e6}},
      {"train",
       "skip_gradient_z",
       &t.skip_gradient_z,
       "the same for the gradient's norm",
       "",
       {0, 1e6}},

      {"optimizer",
       "kind",
       &o.kind,
       "adamw; or muon for matrices with adamw for the rest",
       "",
       {},
       {"adamw", "muon"}},
      {"optimizer", "lr", &o.lr, "peak learning rate", "", {0, 10, true}},
      {"optimizer", "beta1", &o.beta1, "decay of Adam's first moment", "", {0, 0.999999999}},
      {"optimizer", "beta2", &o.beta2, "decay of Adam's second moment", "", {0, 0.999999999}},
      {"optimizer", "eps", &o.eps, "added to Adam's denominator", "", {0, 1, true}},
      {"optimizer",
       "weight_decay",
       &o.weight_decay,
       "of matrices, times the learning rate",
       "",
       {0, 10}},
      {"optimizer", "decay_all", &o.decay_all, "decay norms and biases too"},
      {"optimizer",
       "muon_momentum",
       &o.muon_momentum,
       "decay of Muon's momentum",
       "",
       {0, 0.999999999}},
      {"optimizer",
       "muon_update_rms",
       &o.muon_update_rms,
       "root mean square of Muon's update at learning rate 1",
       "",
       {0, 10, true}},
      {"optimizer",
       "muon_lift_steps",
       &o.muon_lift_steps,
       "Newton-Schulz steps that lift small singular values; V4 takes 8",
       "steps",
       {1, 32}},
      {"optimizer",
       "muon_converge_steps",
       &o.muon_converge_steps,
       "Newton-Schulz steps after them that bring all to 1; V4 takes 2",
       "steps",
       {0, 32}},

      {"schedule",
       "kind",
       &h.kind,
       "wsd: warm-up, plateau, decay; cosine: warm-up, half a cosine",
       "",
       {},
       {"wsd", "cosine"}},
      {"schedule", "decay", &h.decay, "shape of the decay of wsd", "", {}, {"1-sqrt", "linear"}},
      {"schedule", "warmup_steps", &h.warmup_steps, "linear rise from zero", "steps", kCount},
      {"schedule",
       "decay_fraction",
       &h.decay_fraction,
       "of train.steps, at the end, for wsd's decay",
       "",
       kPart},
      {"schedule",
       "decay_steps",
       &h.decay_steps,
       "the same in steps; replaces decay_fraction",
       "steps",
       kCount},
      {"schedule", "min_ratio", &h.min_ratio, "of the peak, at the end", "", kPart},

      {"checkpoint", "dir", &c.dir, "folder of the run: checkpoints, metrics, curve"},
      {"checkpoint",
       "every",
       &c.every,
       "save every so many steps; 0: only at the end and when stopped",
       "steps",
       kCount},
      {"checkpoint", "keep_last", &c.keep_last, "newest checkpoints to keep", "", {1, 1e6}},
      {"checkpoint", "keep_best", &c.keep_best, "keep the one with the lowest held-out loss too"},
      {"checkpoint",
       "weights",
       &c.weights,
       "type of weights in model directories; training goes on from f32",
       "",
       {},
       {"f32", "bf16"}},
      {"checkpoint",
       "key",
       &c.key,
       "file of a secret key (ferry keygen) that signs the passports of model directories"},

      {"log",
       "every",
       &l.every,
       "a line every so many steps where the output is no terminal",
       "steps",
       {1, 1e9}},
      {"log", "colour", &l.colour, "of the progress line", "", {}, {"auto", "always", "never"}},
      {"log", "tensorboard", &l.tensorboard, "write TensorBoard event files"},
      {"log", "curve", &l.curve, "write curve.svg"},
  };
}

template <typename T>
struct Inner {
  using Type = T;
  static constexpr bool optional = false;
};
template <typename T>
struct Inner<std::optional<T>> {
  using Type = T;
  static constexpr bool optional = true;
};
template <typename Pointer>  // what a target points at
using Held = Inner<std::remove_pointer_t<Pointer>>;

enum class Kind { kInteger, kNumber, kBool, kText };

Kind kind_of(const Field& f) {
  return std::visit(
      []<typename P>(P) {
        using T = typename Held<P>::Type;
        if constexpr (std::is_same_v<T, int64_t>)
          return Kind::kInteger;
        else if constexpr (std::is_same_v<T, double>)
          return Kind::kNumber;
        else if constexpr (std::is_same_v<T, bool>)
          return Kind::kBool;
        else
          return Kind::kText;
      },
      f.target);
}

Value value_of(const Field& f) {
  return std::visit(
      []<typename P>(P p) -> Value {
        if constexpr (Held<P>::optional)
          return *p ? Value(**p) : Value();
        else
          return *p;
      },
      f.target);
}

bool is_set(const Value& v) { return !std::holds_alternative<std::monostate>(v); }

/// With everything escaped that TOML and a terminal would take amiss.
std::string printable(std::string_view s) {
  std::string out;
  for (const char c : s) {
    if (c == '"' || c == '\\')
      out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out;
}

std::string in_quotes(std::string_view s) { return fmt::format("\"{}\"", printable(s)); }

std::string text_of(double v) {
  std::string s = fmt::format("{}", v);
  if (s.find_first_of(".en") == std::string::npos) s += ".0";
  return s;
}

std::string text_of(const Value& v) {
  if (const auto* i = std::get_if<int64_t>(&v)) return std::to_string(*i);
  if (const auto* d = std::get_if<double>(&v)) return text_of(*d);
  if (const auto* b = std::get_if<bool>(&v)) return *b ? "true" : "false";
  if (const auto* s = std::get_if<std::string>(&v)) return in_quotes(*s);
  return "not set";
}

std::string bounds_of(const Field& f, bool whole) {
  const auto number = [whole](double v) {
    return whole ? fmt::format("{:.0f}", v) : fmt::format("{}", v);
  };
  const Bounds& b = f.bounds;
  const bool low = b.least > -1e300, high = b.most < 1e300;
  if (low && high)
    return b.above ? fmt::format("above {}, at most {}", number(b.least), number(b.most))
                   : fmt::format("{} to {}", number(b.least), number(b.most));
  if (low) return fmt::format("{} {}", b.above ? "above" : "at least", number(b.least));
  return "";
}

/// "a whole number, 1 to 1000000000"; "one of "bf16", "f32"": what the field takes.
std::string allowed(const Field& f) {
  const Kind kind = kind_of(f);
  if (kind == Kind::kBool) return "true or false";
  if (kind == Kind::kText) {
    std::string list;
    for (const std::string& choice : f.choices)
      list += fmt::format("{} {}", list.empty() ? "one of" : ",", in_quotes(choice));
    return list.empty() ? "text" : list;
  }
  const std::string bounds = bounds_of(f, kind == Kind::kInteger);
  return fmt::format("{}{}{}",
                     kind == Kind::kInteger ? "a whole number" : "a number",
                     bounds.empty() ? "" : ", ",
                     bounds);
}

tl::unexpected<Status> refused(std::string_view where, const Field& f, std::string_view got) {
  return fail(Code::kInvalidInput, "{}: {} is {}; it must be {}", where, f.path(), got, allowed(f));
}

bool within(const Bounds& b, double v) {
  return std::isfinite(v) && (b.above ? v > b.least : v >= b.least) && v <= b.most;
}

/// Puts a value of the right type into the field, if the field's bounds allow it.
template <typename T>
Result<void> assign(const Field& f, const T& v, std::string_view where) {
  if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
    if (!within(f.bounds, static_cast<double>(v))) return refused(where, f, text_of(Value(v)));
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!f.choices.empty() && std::find(f.choices.begin(), f.choices.end(), v) == f.choices.end())
      return refused(where, f, in_quotes(v));
    if (v.find('\0') != std::string::npos) return refused(where, f, "text with a zero byte");
  }
  std::visit(
      [&v]<typename P>(P p) {
        if constexpr (std::is_same_v<typename Held<P>::Type, T>) *p = v;
      },
      f.target);
  return {};
}

/// Edits (Damerau-Levenshtein, adjacent swaps count one) from a to b.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

/// The same key elsewhere counts as near: "steps" under [schedule] means train.steps.
tl::unexpected<Status> unknown(std::string_view where,
                               const std::string& section,
                               const std::string& key,
                               const std::vector<Field>& fields) {
  const std::string path = section.empty() ? key : section + "." + key;
  std::string nearest;
  size_t best = 1000;
  const auto consider = [&](size_t cost, const std::string& candidate) {
    if (cost < best) best = cost, nearest = candidate;
  };
  if (path.size() <= 64)
    for (const Field& f : fields) {
      consider(distance(path, f.path()), f.path());
      if (section != f.section) consider(distance(key, f.key) + 1, f.path());
      if (section.empty()) consider(distance(key, f.section), f.section);
    }
  const std::string shown = path.size() <= 64 ? path : path.substr(0, 61) + "...";
  const std::string name = printable(shown);
  if (best <= std::max<size_t>(2, key.size() / 3))
    return fail(
        Code::kInvalidInput, "{}: unknown setting {}; did you mean {}?", where, name, nearest);
  return fail(Code::kInvalidInput,
              "{}: unknown setting {}; `ferry train --print-config` lists all",
              where,
              name);
}

const char* type_name(toml::node_type t) {
  switch (t) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "text";
    case toml::node_type::integer: return "a whole number";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "true or false";
    case toml::node_type::none: return "nothing";
    default: return "a date or time";
  }
}

Result<void> assign_node(const Field& f, const toml::node& node, std::string_view where) {
  const Kind kind = kind_of(f);
  if (const auto* i = node.as_integer()) {
    if (kind == Kind::kInteger) return assign<int64_t>(f, i->get(), where);
    if (kind == Kind::kNumber) return assign<double>(f, static_cast<double>(i->get()), where);
  }
  if (const auto* d = node.as_floating_point(); d && kind == Kind::kNumber)
    return assign<double>(f, d->get(), where);
  if (const auto* b = node.as_boolean(); b && kind == Kind::kBool)
    return assign<bool>(f, b->get(), where);
  if (const auto* s = node.as_string(); s && kind == Kind::kText)
    return assign<std::string>(f, s->get(), where);
  return refused(where, f, type_name(node.type()));
}

Result<void> read_table(const toml::table& table,
                        const std::string& section,
                        std::string_view name,
                        const std::vector<Field>& fields) {
  for (const auto& [k, node] : table) {
    const std::string key(k.str());
    const std::string path = section.empty() ? key : section + "." + key;
    const std::string where =
        fmt::format("{}:{}", name, static_cast<int64_t>(k.source().begin.line));
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const Field& f) {
      return f.section == section && f.key == key;
    });
    if (field != fields.end()) {
      TRY(assign_node(*field, node, where));
      continue;
    }
    const bool is_section = std::any_of(
        fields.begin(), fields.end(), [&](const Field& f) { return f.section == path; });
    if (!is_section) return unknown(where, section, key, fields);
    if (const toml::table* inner = node.as_table())
      TRY(read_table(*inner, path, name, fields));
    else
      return fail(Code::kInvalidInput,
                  "{}: {} is {}; it must be a section, [{}]",
                  where,
                  path,
                  type_name(node.type()),
                  path);
  }
  return {};
}

template <typename T>
bool read_whole(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

Result<void> override(std::string_view option, const std::vector<Field>& fields) {
  if (option.starts_with("--")) option.remove_prefix(2);
  const size_t equals = option.find('=');
  if (equals == std::string_view::npos)
    return fail(Code::kInvalidInput,
                "command line: {}: settings are given as --section.key=value",
                in_quotes(option));
  const std::string path(option.substr(0, equals));
  const std::string text(option.substr(equals + 1));
  const std::string where = "command line";
  const auto f =
      std::find_if(fields.begin(), fields.end(), [&](const Field& x) { return x.path() == path; });
  if (f == fields.end()) {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos
               ? unknown(where, "", path, fields)
               : unknown(where, path.substr(0, dot), path.substr(dot + 1), fields);
  }
  switch (kind_of(*f)) {
    case Kind::kInteger: {
      int64_t v = 0;
      return read_whole(text, v) ? assign<int64_t>(*f, v, where)
                                 : refused(where, *f, in_quotes(text));
    }
    case Kind::kNumber: {
      double v = 0;
      return read_whole(text, v) ? assign<double>(*f, v, where)
                                 : refused(where, *f, in_quotes(text));
    }
    case Kind::kBool:
      if (text != "true" && text != "false") return refused(where, *f, in_quotes(text));
      return assign<bool>(*f, text == "true", where);
    case Kind::kText: return assign<std::string>(*f, text, where);
  }
  return {};
}

/// What no field can say alone.
Result<void> check_together(const Settings& s, std::string_view name) {
  const ModelSettings& m = s.model;
  const int sources = !m.preset.empty() + !m.config.empty() + !m.init.empty();
  if (sources > 1)
    return fail(
        Code::kInvalidInput,
        "{}: model.preset, model.config and model.init exclude each other; keep one of them",
        name);
  const nlohmann::ordered_json inline_fields = model_overrides(m);
  if (sources == 0 && inline_fields.empty())
    return fail(Code::kInvalidInput,
                "{}: no model: give model.preset, model.config, model.init or the hyper-parameters "
                "themselves",
                name);
  if (!m.init.empty() && !inline_fields.empty())
    return fail(
        Code::kInvalidInput,
        "{}: model.{} is given, but model.init brings its own architecture; drop one of them",
        name,
        inline_fields.begin().key());
  const RopeScalingSettings& r = m.rope_scaling;
  const bool scaled = r.factor || r.beta_fast || r.beta_slow || r.mscale || r.mscale_all_dim ||
                      r.original_max_position_embeddings;
  if (scaled && !r.type)
    return fail(
        Code::kInvalidInput, "{}: [model.rope_scaling] has no type; it must be \"yarn\"", name);
  if (s.data.dir.empty())
    return fail(Code::kInvalidInput,
                "{}: data.dir is not set; it must name a folder that `ferry data prepare` wrote",
                name);
  if (s.checkpoint.dir.empty())
    return fail(Code::kInvalidInput,
                "{}: checkpoint.dir is empty; it must name the folder of the run",
                name);
  const TrainSettings& t = s.train;
  if (t.micro_batch_tokens % s.data.sequence_length != 0)
    return fail(
        Code::kInvalidInput,
        "{}: train.micro_batch_tokens is {}; it must be a multiple of data.sequence_length, {}",
        name,
        t.micro_batch_tokens,
        s.data.sequence_length);
  if (t.tokens_per_step % t.micro_batch_tokens != 0)
    return fail(
        Code::kInvalidInput,
        "{}: train.tokens_per_step is {}; it must be a multiple of train.micro_batch_tokens, {}",
        name,
        t.tokens_per_step,
        t.micro_batch_tokens);
  if (const Result<void> schedule = check_schedule(schedule_of(s)); !schedule)
    return fail(Code::kInvalidInput,
                "{}: [schedule] with train.steps = {}: {}",
                name,
                t.steps,
                schedule.error().message);
  return {};
}

}  // namespace

Result<Settings> parse_settings(std::string_view text,
                                std::string_view name,
                                std::span<const std::string> overrides) {
  Settings settings;
  const std::vector<Field> fields = fields_of(settings);
  const toml::parse_result parsed = toml::parse(text, name);
  if (!parsed)
    return fail(Code::kInvalidInput,
                "{}:{}: {}",
                name,
                static_cast<int64_t>(parsed.error().source().begin.line),
                parsed.error().description());
  TRY(read_table(parsed.table(), "", name, fields));
  for (const std::string& option : overrides) TRY(override(option, fields));
  TRY(check_together(settings, name));
  return settings;
}

Result<Settings> read_settings(const std::string& path, std::span<const std::string> overrides) {
  TRY_ASSIGN(const std::string text, read_file(path, 1 << 20));
  return parse_settings(text, path, overrides);
}

std::string print_settings(const Settings& settings) {
  Settings shown = settings, defaults;
  const std::vector<Field> fields = fields_of(shown), fresh = fields_of(defaults);
  std::string out, section;
  for (size_t i = 0; i < fields.size(); ++i) {
    const Field& f = fields[i];
    if (section != f.section)
      out += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", section = f.section);
    const Value v = value_of(f), d = value_of(fresh[i]);
    std::string notes = kind_of(f) == Kind::kText && f.choices.empty() ? "" : allowed(f);
    if (*f.unit != 0) notes += fmt::format("; {}", f.unit);
    if (is_set(d) && v != d) notes += fmt::format("; default {}", text_of(d));
    out += notes.empty() ? fmt::format("# {}\n", f.meaning)
                         : fmt::format("# {} ({})\n", f.meaning, notes);
    out += is_set(v) ? fmt::format("{} = {}\n", f.key, text_of(v))
                     : fmt::format("# {} is not set\n", f.key);
  }
  return out;
}

nlohmann::ordered_json settings_json(const Settings& settings) {
  Settings copy = settings;
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const Field& f : fields_of(copy)) {
    const Value value = value_of(f);
    if (!is_set(value)) continue;
    nlohmann::ordered_json* at = &out;
    std::string_view section = f.section;
    for (size_t dot; (dot = section.find('.')) != std::string_view::npos;
         section.remove_prefix(dot + 1))
      at = &(*at)[std::string(section.substr(0, dot))];
    std::visit(
        [&](const auto& v) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(v)>, std::monostate>)
            (*at)[std::string(section)][f.key] = v;
        },
        value);
  }
  return out;
}

nlohmann::ordered_json model_overrides(const ModelSettings& model) {
  Settings only;
  only.model = model;
  nlohmann::ordered_json out = settings_json(only)["model"];
  for (const char* source : {"preset", "config", "init"}) out.erase(source);
  if (model.q_lora_rank == 0) out["q_lora_rank"] = nullptr;
  return out;
}

std::vector<SettingChange> changed_settings(const Settings& was, const Settings& now) {
  Settings a = was, b = now;
  const std::vector<Field> before = fields_of(a), after = fields_of(b);
  std::vector<SettingChange> changes;
  for (size_t i = 0; i < before.size(); ++i) {
    const Value x = value_of(before[i]), y = value_of(after[i]);
    if (x != y) changes.push_back({before[i].path(), text_of(x), text_of(y)});
  }
  return changes;
}

Schedule schedule_of(const Settings& s) {
  const ScheduleSettings& h = s.schedule;
  const auto fraction =
      static_cast<int64_t>(std::floor(h.decay_fraction * static_cast<double>(s.train.steps)));
  return {.kind = h.kind == "cosine" ? Schedule::Kind::kCosine : Schedule::Kind::kWsd,
          .decay = h.decay == "linear" ? Schedule::Decay::kLinear : Schedule::Decay::kOneMinusSqrt,
          .steps = s.train.steps,
          .warmup_steps = h.warmup_steps,
          .decay_steps = h.decay_steps.value_or(fraction),
          .lr = s.optimizer.lr,
          .min_ratio = h.min_ratio};
}

OptimizerSettings optimizer_of(const Settings& s) {
  const OptimizerConfig& o = s.optimizer;
  return {
      .kind = o.kind == "muon" ? OptimizerSettings::Kind::kMuon : OptimizerSettings::Kind::kAdamW,
      .beta1 = o.beta1,
      .beta2 = o.beta2,
      .eps = o.eps,
      .weight_decay = o.weight_decay,
      .decay_all = o.decay_all,
      .muon_momentum = o.muon_momentum,
      .muon_update_rms = o.muon_update_rms,
      .muon_lift_steps = static_cast<int>(o.muon_lift_steps),
      .muon_converge_steps = static_cast<int>(o.muon_converge_steps)};
}

}  // namespace ferry
