#include "checkpoint/gguf.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/gguf_tokenizer.h"

namespace ferry {
namespace {

/// Writes the bytes of a GGUF file, right or wrong.
class Builder {
 public:
  template <class T>
  Builder& put(T v) {
    const auto* p = reinterpret_cast<const char*>(&v);
    bytes_.append(p, sizeof v);
    return *this;
  }
  Builder& text(std::string_view s) {
    put(uint64_t{s.size()});
    bytes_ += s;
    return *this;
  }
  Builder& header(uint64_t tensors, uint64_t values, uint32_t version = 3) {
    bytes_ += "GGUF";
    return put(version).put(tensors).put(values);
  }
  Builder& key_u32(std::string_view key, uint32_t v) { return text(key).put(uint32_t{4}).put(v); }
  Builder& key_f32(std::string_view key, float v) { return text(key).put(uint32_t{6}).put(v); }
  Builder& key_text(std::string_view key, std::string_view v) {
    return text(key).put(uint32_t{8}).text(v);
  }
  Builder& tensor(std::string_view name,
                  std::initializer_list<uint64_t> dims_innermost_first,
                  uint32_t type,
                  uint64_t begin) {
    text(name).put(static_cast<uint32_t>(dims_innermost_first.size()));
    for (const uint64_t d : dims_innermost_first) put(d);
    return put(type).put(begin);
  }
  Builder& pad(size_t to) {
    bytes_.resize((bytes_.size() + to - 1) / to * to, '\0');
    return *this;
  }
  Builder& data(size_t size, char fill = '\0') {
    bytes_.append(size, fill);
    return *this;
  }
  std::string& bytes() { return bytes_; }
  Result<GgufFile> parse() const {
    return GgufFile::parse(std::as_bytes(std::span(bytes_.data(), bytes_.size())), "test.gguf");
  }

 private:
  std::string bytes_;
};

std::string refusal(const Builder& b) {
  const Result<GgufFile> file = b.parse();
  return file ? "accepted" : file.error().message;
}

std::string unhex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

/// Every quantised type decodes to the very bits that llama.cpp's own package gives.
TEST(Gguf, BlocksDecodeAsLlamaCppDoes) {
  std::ifstream in(FERRY_SOURCE_DIR "/testdata/goldens/gguf_blocks.json");
  const auto goldens = nlohmann::json::parse(in);
  int kinds = 0;
  for (uint32_t number = 0; number < 64; ++number) {
    const std::optional<GgufType> type = gguf_type(number);
    if (!type || !goldens.contains(to_string(*type))) continue;
    ++kinds;
    const auto& golden = goldens.at(to_string(*type));
    const std::string bytes = unhex(golden.at("bytes").get<std::string>());
    const std::string expected = unhex(golden.at("values").get<std::string>());
    std::vector<float> values(expected.size() / sizeof(float));
    decode_blocks(*type, std::as_bytes(std::span(bytes.data(), bytes.size())), values);
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), expected.size()), 0) << to_string(*type);
  }
  EXPECT_EQ(kinds, 8);
}

TEST(Gguf, ReadsValuesAndTensors) {
  Builder b;
  b.header(2, 5).key_u32("a.size", 7).key_f32("a.eps", 0.5f).key_text("name", "x\"y");
  b.text("list").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{2}).text("p").text("");
  b.text("flags").put(uint32_t{9}).put(uint32_t{7}).put(uint64_t{2}).put('\1').put('\0');
  b.tensor("w", {3, 2}, 0, 0).tensor("q", {32}, 8, 32).pad(32).data(24).pad(32);
  const size_t q_begin = b.bytes().size();
  b.data(34, 1);
  const Result<GgufFile> file = b.parse();
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->integer("a.size", 0, 9).value(), 7);
  EXPECT_FALSE(file->integer("a.size", 0, 6));
  EXPECT_FALSE(file->integer("name", 0, 9));
  EXPECT_EQ(file->number("a.eps").value(), 0.5);
  EXPECT_EQ(file->text("name").value(), "x\"y");
  EXPECT_EQ(file->text("nothing").error().message, "test.gguf: the value \"nothing\" is missing");
  EXPECT_EQ((file->value<std::vector<std::string>>("list", "texts").value()),
            (std::vector<std::string>{"p", ""}));
  EXPECT_EQ((file->value<std::vector<bool>>("flags", "flags").value()),
            (std::vector<bool>{true, false}));
  const GgufTensor* w = file->find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->shape, Shape({2, 3}));
  EXPECT_EQ(file->bytes(*w).size(), 24u);
  EXPECT_EQ(file->find("q")->begin, q_begin);
  EXPECT_EQ(file->find("q")->bytes, 34u);
  EXPECT_EQ(file->find("z"), nullptr);
}

/// The inputs of public advisories against GGUF readers, and their like.
TEST(Gguf, RefusesWhatDoesNotFit) {
  const auto expect = [](const Builder& b, const char* part) {
    const std::string got = refusal(b);
    EXPECT_NE(got.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << got;
  };
  expect(Builder().text("GGML"), "does not begin with");
  expect(Builder().header(0, 0, 1), "version 1");
  expect(Builder().header(0, 0, 0x03000000), "big-endian");
  expect(Builder().header(~uint64_t{0}, 0), "announces");
  expect(Builder().header(0, uint64_t{1} << 60), "announces");
  expect(Builder().header(0, 1).put(~uint64_t{0}), "cut short");
  expect(Builder().header(0, 1).text("k").put(uint32_t{99}).data(40), "the type 99");
  expect(Builder()
             .header(0, 1)
             .text("k")
             .put(uint32_t{9})
             .put(uint32_t{4})
             .put(uint64_t{1} << 62)
             .data(40),
         "announces 4611686018427387904 elements");
  expect(
      Builder().header(0, 1).text("k").put(uint32_t{9}).put(uint32_t{9}).put(uint64_t{1}).data(40),
      "a list of lists");
  expect(Builder().header(0, 1).text("k").put(uint32_t{7}).put('\2').data(40),
         "neither true nor false");
  expect(Builder().header(0, 2).key_u32("k", 1).key_u32("k", 1), "given twice");
  expect(Builder().header(0, 1).key_u32("general.alignment", 24).data(40), "power of two");
  expect(Builder().header(0, 1).key_u32("general.alignment", 0).data(40), "power of two");
  expect(Builder().header(0, 1).key_u32("split.count", 3).data(40), "one of 3 files");

  const auto with_tensor = [](std::initializer_list<uint64_t> dims, uint32_t type, uint64_t begin) {
    Builder b;
    b.header(1, 0).tensor("t", dims, type, begin).pad(32).data(64);
    return b;
  };
  EXPECT_EQ(refusal(with_tensor({16}, 0, 0)), "accepted");
  expect(with_tensor({17}, 0, 0), "cut short");
  expect(with_tensor({8}, 0, 64), "cut short");
  expect(with_tensor({8}, 0, ~uint64_t{31}), "cut short");
  expect(with_tensor({8}, 0, 16), "alignment");
  expect(with_tensor({0}, 0, 0), "empty");
  expect(with_tensor({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), "beyond 2^60");
  expect(with_tensor({uint64_t{1} << 63, 2}, 0, 0), "beyond 2^60");
  expect(with_tensor({1, 1, 1, 1, 1}, 0, 0), "dimensions");
  expect(with_tensor({}, 0, 0), "dimensions");
  expect(with_tensor({33}, 8, 0), "not a multiple of the block");
  expect(with_tensor({256}, 16, 0), "IQ2_XXS");
  expect(with_tensor({32}, 5, 0), "the element type 5");
  Builder twice;
  twice.header(2, 0).tensor("t", {8}, 0, 0).tensor("t", {8}, 0, 32).pad(32).data(64);
  expect(twice, "given twice");
  Builder over;
  over.header(2, 0).tensor("t", {16}, 0, 0).tensor("u", {8}, 0, 32).pad(32).data(64);
  expect(over, "over each other");

  // Cut anywhere, a file is refused and nothing is read past its end.
  Builder whole = with_tensor({16}, 0, 0);
  const std::string bytes = whole.bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    whole.bytes() = bytes.substr(0, size);
    EXPECT_FALSE(whole.parse()) << size;
  }
}

/// A tiny llama whose rows are numbered, so that their order can be seen.
Builder tiny_llama(
    float first = 0,
    const char* end = "tokenizer.ggml.eos_token_id",
    uint64_t more_keys = 0,
    const std::function<void(Builder&)>& put_more = [](Builder&) {},
    const std::array<float, 2>& factors = {1, 1}) {
  Builder b;
  b.header(13, 9 + more_keys)
      .key_text("general.architecture", "llama")
      .key_u32("llama.block_count", 1)
      .key_u32("llama.embedding_length", 8)
      .key_u32("llama.feed_forward_length", 4)
      .key_u32("llama.context_length", 64)
      .key_u32("llama.attention.head_count", 2)
      .key_u32("llama.attention.head_count_kv", 1)
      .key_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .key_u32(end, 2);
  put_more(b);
  struct Part {
    const char* name;
    std::vector<uint64_t> dims;
  };
  const std::vector<Part> parts = {{"token_embd.weight", {8, 16}},
                                   {"output_norm.weight", {8}},
                                   {"output.weight", {8, 16}},
                                   {"blk.0.attn_norm.weight", {8}},
                                   {"blk.0.attn_q.weight", {8, 8}},
                                   {"blk.0.attn_k.weight", {8, 4}},
                                   {"blk.0.attn_v.weight", {8, 4}},
                                   {"blk.0.attn_output.weight", {8, 8}},
                                   {"blk.0.ffn_norm.weight", {8}},
                                   {"blk.0.ffn_gate.weight", {8, 4}},
                                   {"blk.0.ffn_up.weight", {8, 4}},
                                   {"blk.0.ffn_down.weight", {4, 8}},
                                   {"rope_freqs.weight", {2}}};
  uint64_t at = 0;
  for (const Part& p : parts) {
    uint64_t count = 1;
    b.text(p.name).put(static_cast<uint32_t>(p.dims.size()));
    for (const uint64_t d : p.dims) {
      b.put(d);
      count *= d;
    }
    b.put(uint32_t{0}).put(at);
    at += (count * 4 + 31) / 32 * 32;
  }
  b.pad(32);
  for (const Part& p : parts) {
    const uint64_t columns = p.dims[0], rows = p.dims.size() > 1 ? p.dims[1] : 1;
    for (uint64_t r = 0; r < rows; ++r)
      for (uint64_t c = 0; c < columns; ++c) {
        const bool divides = std::string_view(p.name) == "rope_freqs.weight";
        b.put(divides ? factors[c] : first + static_cast<float>(r));
      }
    b.pad(32);
  }
  return b;
}

std::vector<float> first_column(const Tensor& t) {
  const std::vector<float> all = t.to_f32();
  std::vector<float> out;
  for (int64_t r = 0; r < t.dim(0); ++r) out.push_back(all[static_cast<size_t>(r * t.dim(1))]);
  return out;
}

TEST(GgufModel, TellsWhatTheHubWouldTell) {
  const Builder b = tiny_llama();
  Result<GgufFile> file = b.parse();
  ASSERT_TRUE(file) << file.error().message;
  Result<GgufModel> model = GgufModel::of(*std::move(file));
  ASSERT_TRUE(model) << model.error().message;
  const auto config = nlohmann::json::parse(model->config_json());
  EXPECT_EQ(config.at("model_type"), "llama");
  EXPECT_EQ(config.at("num_key_value_heads"), 1);
  EXPECT_EQ(config.at("head_dim"), 4);
  EXPECT_EQ(config.at("vocab_size"), 16);
  EXPECT_EQ(config.at("rms_norm_eps"), 1e-5);  // not 9.999999747378752e-06
  EXPECT_EQ(config.at("tie_word_embeddings"), false);
  EXPECT_TRUE(config.at("bos_token_id").is_null());
  EXPECT_EQ(config.at("eos_token_id"), 2);
  EXPECT_TRUE(config.at("rope_scaling").is_null());  // rope_freqs are ones, which stretch nothing
  EXPECT_EQ(model->names().size(), 12u);

  // Rows of queries and keys are put back where the hub has them; others stay.
  Device& cpu = **open_device("cpu");
  const auto rows = [&](const char* name) {
    return first_column(model->load(name, cpu, DType::kF32).value());
  };
  EXPECT_EQ(rows("model.layers.0.self_attn.q_proj.weight"),
            (std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(rows("model.layers.0.self_attn.k_proj.weight"), (std::vector<float>{0, 2, 1, 3}));
  EXPECT_EQ(rows("model.layers.0.self_attn.v_proj.weight"), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(rows("lm_head.weight").size(), 16u);
  EXPECT_EQ(model->load("nothing", cpu, DType::kF32).error().code, Code::kNotFound);
}

/// The expressions of a tokenizer's pre-tokenizer, in order; ends of lines as escapes, which files have
/// either way.
void collect_expressions(const nlohmann::json& j, std::vector<std::string>& to) {
  if (j.is_object() && j.contains("Regex")) {
    std::string& expression = to.emplace_back();
    for (const char c : j.at("Regex").get<std::string>())
      expression += c == '\r' ? "\\r" : c == '\n' ? "\\n" : std::string(1, c);
  }
  if (j.is_structured())
    for (const auto& part : j) collect_expressions(part, to);
}

/// A name stands for the very expressions of the models' own files.
TEST(GgufModel, SplitsTextAsTheModelsOwnFiles) {
  for (const auto& [name, file] : {std::pair{"deepseek-llm", "deepseek_v2"},
                                   {"deepseek-v3", "deepseek"},
                                   {"llama-bpe", "llama3"},
                                   {"qwen2", "qwen2"}}) {
    Builder b;
    b.header(0, 6)
        .key_text("general.architecture", "llama")
        .key_text("tokenizer.ggml.model", "gpt2")
        .key_text("tokenizer.ggml.pre", name);
    b.text("tokenizer.ggml.tokens").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{1}).text("a");
    b.text("tokenizer.ggml.token_type").put(uint32_t{9}).put(uint32_t{5}).put(uint64_t{1});
    b.put(int32_t{1});
    b.text("tokenizer.ggml.merges").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{1}).text("a a");
    const Result<GgufFile> gguf = b.parse();
    ASSERT_TRUE(gguf) << gguf.error().message;
    const Result<std::string> made = gguf_tokenizer_json(*gguf);
    ASSERT_TRUE(made) << made.error().message;
    std::ifstream in(fmt::format(FERRY_SOURCE_DIR "/testdata/tokenizer/{}.json", file));
    std::vector<std::string> ours, theirs;
    collect_expressions(nlohmann::json::parse(*made).at("pre_tokenizer"), ours);
    collect_expressions(nlohmann::json::parse(in), theirs);
    ASSERT_FALSE(theirs.empty()) << name;
    EXPECT_EQ(ours, theirs) << name;
  }
}

/// The config's rope_scaling, or why there is none.
nlohmann::json scaling_of(uint64_t keys,
                          const std::function<void(Builder&)>& put,
                          const std::array<float, 2>& factors = {1, 1}) {
  const Builder b = tiny_llama(0, "tokenizer.ggml.eos_token_id", keys, put, factors);
  const Result<GgufModel> model = GgufModel::of(b.parse().value());
  if (!model) return model.error().message;
  return nlohmann::json::parse(model->config_json()).at("rope_scaling");
}

/// As llama.cpp takes the header: what its converter writes of config.json is config.json again.
TEST(GgufModel, StretchedRopeIsReadAsLlamaCppDoes) {
  using nlohmann::json;
  const json linear = {{"rope_type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(
      scaling_of(
          2,
          [](Builder& b) {
            b.key_text("llama.rope.scaling.type", "linear").key_f32("llama.rope.scaling.factor", 4);
          }),
      linear);
  EXPECT_EQ(scaling_of(1, [](Builder& b) { b.key_f32("llama.rope.scaling.factor", 4); }), linear);
  EXPECT_EQ(scaling_of(1, [](Builder& b) { b.key_f32("llama.rope.scale_linear", 4); }), linear);
  EXPECT_EQ(
      scaling_of(2,
                 [](Builder& b) {
                   b.key_f32("llama.rope.scale_linear", 8).key_f32("llama.rope.scaling.factor", 4);
                 }),
      linear);
  const auto yarn = [](Builder& b) {
    b.key_text("llama.rope.scaling.type", "yarn").key_f32("llama.rope.scaling.factor", 4);
  };
  EXPECT_EQ(scaling_of(2, yarn),
            (json{{"rope_type", "yarn"},
                  {"factor", 4.0},
                  {"beta_fast", 32.0},
                  {"beta_slow", 1.0},
                  {"original_max_position_embeddings", 64}}));  // context_length
  EXPECT_EQ(scaling_of(5,
                       [&](Builder& b) {
                         yarn(b);
                         b.key_u32("llama.rope.scaling.original_context_length", 16)
                             .key_f32("llama.rope.scaling.yarn_beta_fast", 16)
                             .key_f32("llama.rope.scaling.yarn_beta_slow", 2);
                       }),
            (json{{"rope_type", "yarn"},
                  {"factor", 4.0},
                  {"beta_fast", 32.0},
                  {"beta_slow", 1.0},
                  {"original_max_position_embeddings", 16}}));
  EXPECT_EQ(scaling_of(3,
                       [&](Builder& b) {
                         yarn(b);
                         b.key_u32("llama.rope.scaling.original_context_length", 0);
                       }),
            scaling_of(2, yarn));  // 0: not given
  EXPECT_EQ(
      scaling_of(
          2,
          [](Builder& b) {
            b.key_text("llama.rope.scaling.type", "yarn").key_f32("llama.rope.scale_linear", 4);
          }),
      scaling_of(2, yarn));
  // Nothing is stretched where the kind says so, or by 1, or by 0, which is "not given".
  const auto none = [](const char* type, float factor) {
    return scaling_of(2, [&](Builder& b) {
      b.key_text("llama.rope.scaling.type", type).key_f32("llama.rope.scaling.factor", factor);
    });
  };
  EXPECT_TRUE(none("none", 4).is_null());
  EXPECT_TRUE(none("linear", 1).is_null());
  EXPECT_TRUE(none("linear", 0).is_null());
  EXPECT_TRUE(none("yarn", 1).is_null());
  EXPECT_TRUE(none("yarn", 0).is_null());
  const std::string longrope = none("longrope", 4).get<std::string>();
  EXPECT_NE(
      longrope.find("'longrope', which Ferry does not read from GGUF files of llama; it reads "
                    "linear, yarn"),
      std::string::npos)
      << longrope;
  // Llama 3.1's: of two pairs with theta 500000, turning in 2 pi and 2 pi sqrt(theta) positions.
  const auto theta = [](Builder& b) { b.key_f32("llama.rope.freq_base", 500000); };
  const double smooth = (8192 / (2 * 3.14159265358979323846 * std::sqrt(500000.0)) - 1) / 3;
  const std::array<float, 2> llama = {1, static_cast<float>(1 / ((1 - smooth) / 8 + smooth))};
  EXPECT_EQ(scaling_of(1, theta, llama).at("rope_type"), "llama3");
  EXPECT_EQ(scaling_of(1, theta, llama).at("factor"), 8.0);
  const json other = scaling_of(1, theta, {1, 2});
  EXPECT_NE(other.get<std::string>().find("neither Llama 3.1's nor 3.2's"), std::string::npos);
  const json twice = scaling_of(
      3,
      [&](Builder& b) {
        theta(b);
        yarn(b);
      },
      llama);
  ASSERT_TRUE(twice.is_string()) << twice;
  EXPECT_NE(twice.get<std::string>().find("stretched twice"), std::string::npos) << twice;
}

/// llama.cpp reads YaRN's betas, its attention factor and its extrapolation of other architectures alone: here they are
/// not obeyed either, and who gave others than are computed with is told. (Fails where a beta is obeyed, where none is
/// told, or where what says nothing is.)
TEST(GgufModel, WhatLlamaCppDoesNotReadOfYarnIsTold) {
  const auto notes = [](const char* type,
                        std::initializer_list<std::pair<const char*, float>> more) {
    const Builder b =
        tiny_llama(0, "tokenizer.ggml.eos_token_id", 2 + more.size(), [&](Builder& to) {
          to.key_text("llama.rope.scaling.type", type).key_f32("llama.rope.scaling.factor", 4);
          for (const auto& [key, value] : more)
            to.key_f32(std::string("llama.rope.scaling.yarn_") + key, value);
        });
    const Result<GgufModel> model = GgufModel::of(b.parse().value());
    EXPECT_TRUE(model) << model.error().message;
    const auto told = model->reading_notes();
    EXPECT_TRUE(told) << told.error().message;
    return fmt::format("{}", fmt::join(*told, "\n"));
  };
  EXPECT_EQ(notes("yarn", {}), "");
  EXPECT_EQ(notes("yarn", {{"beta_fast", 32}, {"beta_slow", 1}, {"ext_factor", -1}}), "");
  EXPECT_EQ(notes("yarn", {{"ext_factor", 1}, {"attn_factor", 1.1386294f}}), "");
  EXPECT_EQ(notes("linear", {{"beta_fast", 16}, {"attn_factor", 2}}), "");
  EXPECT_NE(notes("yarn", {{"beta_fast", 16}}).find("llama.rope.scaling.yarn_beta_fast 16 is not"),
            std::string::npos);
  EXPECT_NE(notes("yarn", {{"beta_slow", 2}}).find("yarn_beta_slow 2 is not read, as by llama.cpp"),
            std::string::npos);
  EXPECT_NE(notes("yarn", {{"ext_factor", 0}}).find("yarn_ext_factor 0 is not"), std::string::npos);
  // What its converter writes of an "attention_factor" of 1, which Transformers obeys.
  EXPECT_NE(notes("yarn", {{"attn_factor", 1}}).find("computes llama with 1.139"),
            std::string::npos);
}

/// It is the end, and what a chat template is given as eos_token.
TEST(GgufModel, ATurnsEndAloneIsTheEnd) {
  const auto end_of = [](const char* key) {
    const Builder b = tiny_llama(0, key, 1, [](Builder& to) {
      to.text("tokenizer.ggml.tokens").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{3});
      to.text("a").text("b").text("<end>");
    });
    Result<GgufModel> model = GgufModel::of(b.parse().value());
    EXPECT_TRUE(model) << model.error().message;
    EXPECT_EQ(nlohmann::json::parse(model->config_json()).at("eos_token_id"), 2);
    const auto tokens = model->optional_text("tokenizer_config.json");
    EXPECT_TRUE(tokens) << tokens.error().message;
    return nlohmann::json::parse(**tokens).at("eos_token");
  };
  EXPECT_EQ(end_of("tokenizer.ggml.eos_token_id"), "<end>");
  EXPECT_EQ(end_of("tokenizer.ggml.eot_token_id"), "<end>");
  EXPECT_EQ(end_of("tokenizer.ggml.eom_token_id"), "<end>");
}

/// A model with these tokens and what the file says of each; without types if `typed` is false. It names
/// <|eot_id|> as its end of text, and <|mine|> as that of a message.
Result<GgufModel> with_tokens(const std::vector<std::pair<std::string, int32_t>>& tokens,
                              bool typed) {
  const Builder b = tiny_llama(0, "tokenizer.ggml.eos_token_id", typed ? 7 : 6, [&](Builder& to) {
    to.key_u32("tokenizer.ggml.eom_token_id", 5).key_u32("tokenizer.ggml.bos_token_id", 4);
    to.key_text("tokenizer.ggml.model", "gpt2").key_text("tokenizer.ggml.pre", "gpt-2");
    to.text("tokenizer.ggml.merges").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{1});
    to.text("a a");
    to.text("tokenizer.ggml.tokens").put(uint32_t{9}).put(uint32_t{8});
    to.put(uint64_t{tokens.size()});
    for (const auto& token : tokens) to.text(token.first);
    if (!typed) return;
    to.text("tokenizer.ggml.token_type").put(uint32_t{9}).put(uint32_t{5});
    to.put(uint64_t{tokens.size()});
    for (const auto& token : tokens) to.put(token.second);
  });
  TRY_ASSIGN(GgufFile file, b.parse());
  return GgufModel::of(std::move(file));
}

std::set<int> control_tokens(GgufModel& model) {
  std::set<int> ids;
  const auto text = model.optional_text("tokenizer.json");
  EXPECT_TRUE(text) << text.error().message;
  const auto tokenizer = nlohmann::json::parse(**text);
  for (const auto& added : tokenizer.at("added_tokens"))
    if (added.at("special") == true) ids.insert(added.at("id").get<int>());
  return ids;
}

/// Files name one end, or two; their models know more. Older converters got the types of tokens wrong, or wrote none:
/// an answer must end all the same.
TEST(GgufModel, AnswersEndWhereTheModelKnowsAnEnd) {
  constexpr int32_t kText = 1, kControl = 3, kUser = 4;
  for (const int32_t wrong : {kControl, kText, kUser})
    for (const bool typed : {true, false}) {
      Result<GgufModel> model = with_tokens({{"a", kText},
                                             {"<|end_of_text|>", wrong},
                                             {"<|eot_id|>", wrong},
                                             {"<|im_end|>", kControl},
                                             {"<|begin_of_text|>", wrong},
                                             {"<|mine|>", wrong}},
                                            typed);
      ASSERT_TRUE(model) << model.error().message;
      EXPECT_EQ(nlohmann::json::parse(model->config_json()).at("eos_token_id"),
                (nlohmann::json{2, 5, 1, 3}));
      EXPECT_EQ(control_tokens(*model), (std::set<int>{1, 2, 3, 4, 5})) << wrong << typed;
      const auto told = model->reading_notes();
      ASSERT_TRUE(told) << told.error().message;
      const std::string notes = fmt::format("{}", fmt::join(*told, "\n"));
      if (!typed)
        EXPECT_NE(notes.find("does not say which of its tokens"), std::string::npos) << notes;
      else if (wrong == kControl)
        EXPECT_EQ(notes, "");
      else
        EXPECT_NE(notes.find("does not call '<|end_of_text|>', '<|eot_id|>', '<|begin_of_text|>', "
                             "'<|mine|>' control tokens"),
                  std::string::npos)
            << notes;
    }
  // A token that ends nothing is what the list says.
  Result<GgufModel> model = with_tokens({{"<|im_start|>", kText},
                                         {"b", kControl},
                                         {"c", kControl},
                                         {"d", kText},
                                         {"e", kControl},
                                         {"f", kControl}},
                                        true);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(control_tokens(*model), (std::set<int>{1, 2, 4, 5}));
  // Nor is a word that is named as the begin: llama.cpp's default, made explicit, may be a comma.
  model = with_tokens(
      {{"a", kText}, {"b", kControl}, {"c", kControl}, {"d", kText}, {",", kText}, {"f", kControl}},
      true);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(control_tokens(*model), (std::set<int>{1, 2, 5}));
}

TEST(GgufModel, AFileOfBeforeTextsSplittingWasNamedSaysSo) {
  Builder b;
  b.header(0, 2).key_text("general.architecture", "llama").key_text("tokenizer.ggml.model", "gpt2");
  const Result<std::string> made = gguf_tokenizer_json(b.parse().value());
  ASSERT_FALSE(made);
  EXPECT_NE(
      made.error().message.find("does not say how its tokenizer splits text (tokenizer.ggml.pre)"),
      std::string::npos)
      << made.error().message;
}

/// By the kind of tokenizer, where the file says nothing: each of its names is that kind.
TEST(GgufModel, TextsBeginAsTheFilesKindOfTokenizerHasIt) {
  for (const auto& [name, expected] : {std::pair{"llama-bpe", true},
                                       {"llama3", true},
                                       {"llama-v3", true},
                                       {"qwen2", false},
                                       {"gpt-2", false},
                                       {"unheard of", false}})
    for (const int said : {-1, 0, 1}) {
      Builder b;
      b.header(0, said < 0 ? 1 : 2).key_text("tokenizer.ggml.pre", name);
      if (said >= 0) b.text("tokenizer.ggml.add_bos_token").put(uint32_t{7}).put(uint8_t(said));
      const Result<bool> adds = gguf_adds_bos(b.parse().value());
      ASSERT_TRUE(adds) << adds.error().message;
      EXPECT_EQ(*adds, said < 0 ? expected : said == 1) << name << " " << said;
    }
}

/// Who goes by tokenizer.json alone, as Transformers 5 does, begins texts so as well.
TEST(GgufModel, TheTokenizersFileSaysHowTextsBegin) {
  for (const bool adds : {true, false}) {
    Builder b;
    b.header(0, 7)
        .key_text("general.architecture", "llama")
        .key_text("tokenizer.ggml.model", "gpt2")
        .key_text("tokenizer.ggml.pre", adds ? "llama-bpe" : "qwen2")
        .key_u32("tokenizer.ggml.bos_token_id", 1);
    b.text("tokenizer.ggml.tokens").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{2});
    b.text("a").text("<s>");
    b.text("tokenizer.ggml.token_type").put(uint32_t{9}).put(uint32_t{5}).put(uint64_t{2});
    b.put(int32_t{1}).put(int32_t{3});
    b.text("tokenizer.ggml.merges").put(uint32_t{9}).put(uint32_t{8}).put(uint64_t{1}).text("a a");
    const Result<GgufFile> gguf = b.parse();
    ASSERT_TRUE(gguf) << gguf.error().message;
    const Result<std::string> made = gguf_tokenizer_json(*gguf);
    ASSERT_TRUE(made) << made.error().message;
    const auto post = nlohmann::json::parse(*made).at("post_processor");
    ASSERT_EQ(post.is_object(), adds);
    if (adds) {
      EXPECT_EQ(post.at("single").at(0).at("SpecialToken").at("id"), "<s>");
      EXPECT_EQ(post.at("special_tokens").at("<s>").at("ids").at(0), 1);
    }
  }
}

TEST(GgufModel, RefusesNumbersThatAreNone) {
  const Builder b = tiny_llama(std::numeric_limits<float>::quiet_NaN());
  Result<GgufModel> model = GgufModel::of(b.parse().value());
  ASSERT_TRUE(model);
  const Result<Tensor> t = model->load("lm_head.weight", **open_device("cpu"), DType::kBF16);
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code, Code::kCorrupt);
  EXPECT_NE(t.error().message.find("row 0, column 0"), std::string::npos) << t.error().message;
}

/// The tiny llama as llama-gguf-split writes it: `first` tensors in the first file, of which the third has all behind
/// the second's. Changes say what is wrong with file `of`.
struct Split {
  size_t first = 4;
  size_t of = 0;
  std::function<void(Builder&)> keys = {};  // in place of split.no and split.count
  uint32_t tensors = 13;
  uint32_t alignment = 32;
};
std::string write_split(const std::string& name, const Split& split = {}) {
  const Builder whole = tiny_llama(0.5f);
  const GgufFile file = whole.parse().value();
  std::vector<const GgufTensor*> all;
  for (const auto& item : file.tensors()) all.push_back(&item.second);
  const std::string folder = fmt::format("{}ferry_split.{}", ::testing::TempDir(), ::getpid());
  EXPECT_TRUE(make_folders(folder));
  const size_t bounds[] = {0, split.first, split.first + 5, all.size()};
  for (size_t part = 0; part < 3; ++part) {
    const std::span tensors(all.data() + bounds[part], bounds[part + 1] - bounds[part]);
    Builder b;
    const bool aligned = split.alignment != 32 && part == split.of;
    const size_t alignment = aligned ? split.alignment : 32;
    b.header(tensors.size(), (part == 0 ? 12 : 3) + (aligned ? 1 : 0));
    if (aligned) b.key_u32("general.alignment", split.alignment);
    if (part == 0)
      b.key_text("general.architecture", "llama")
          .key_u32("llama.block_count", 1)
          .key_u32("llama.embedding_length", 8)
          .key_u32("llama.feed_forward_length", 4)
          .key_u32("llama.context_length", 64)
          .key_u32("llama.attention.head_count", 2)
          .key_u32("llama.attention.head_count_kv", 1)
          .key_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
          .key_u32("tokenizer.ggml.eos_token_id", 2);
    if (split.keys && part == split.of)
      split.keys(b);
    else
      b.key_u32("split.no", static_cast<uint32_t>(part)).key_u32("split.count", 3);
    b.key_u32("split.tensors.count", split.tensors);
    uint64_t at = 0;
    for (const GgufTensor* t : tensors) {
      b.text(t->name).put(static_cast<uint32_t>(t->shape.rank()));
      for (int d = static_cast<int>(t->shape.rank()); d-- > 0;)
        b.put(static_cast<uint64_t>(t->shape[d]));
      b.put(uint32_t{0}).put(at);
      at += (t->bytes + alignment - 1) / alignment * alignment;
    }
    b.pad(alignment);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const std::span<const std::byte> bytes = file.bytes(*tensors[i]);
      b.bytes().append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (i + 1 < tensors.size()) b.pad(alignment);
    }
    EXPECT_TRUE(write_file_atomic(fmt::format("{}/{}-{:05}-of-00003.gguf", folder, name, part + 1),
                                  b.bytes()));
  }
  return folder + "/" + name;
}

std::string part_name(size_t part) { return fmt::format("-{:05}-of-00003.gguf", part + 1); }

/// All files of a model are read as one: the same config, the same numbers.
TEST(GgufModel, AModelInSeveralFilesIsTheOneInOne) {
  const Builder b = tiny_llama(0.5f);
  Result<GgufModel> whole = GgufModel::of(b.parse().value());
  ASSERT_TRUE(whole) << whole.error().message;
  std::string root;
  for (const size_t first : {size_t{4}, size_t{0}}) {  // its first file may hold the header alone
    const std::string path = write_split("whole", {.first = first}) + "-00001-of-00003.gguf";
    EXPECT_EQ(gguf_files(path).size(), 3u);
    Result<GgufModel> parts = GgufModel::open(path);
    ASSERT_TRUE(parts) << parts.error().message;
    EXPECT_EQ(parts->config_json(), whole->config_json());
    ASSERT_EQ(parts->names(), whole->names());
    for (const std::string& name : whole->names())
      EXPECT_EQ(parts->load(name, **open_device("cpu"), DType::kF32)->to_f32(),
                whole->load(name, **open_device("cpu"), DType::kF32)->to_f32())
          << name;
    const std::string now = parts->weights_root({}).value();
    EXPECT_NE(now, root);
    root = now;
  }
}

/// Each file has its own alignment: what lies in the third is found by the third's.
TEST(GgufModel, AFileOfSeveralHasItsOwnAlignment) {
  const Builder b = tiny_llama(0.5f);
  Result<GgufModel> whole = GgufModel::of(b.parse().value());
  for (size_t of = 0; of < 3; ++of) {
    Result<GgufModel> parts =
        GgufModel::open(write_split("aligned", {.of = of, .alignment = 4096}) + part_name(0));
    ASSERT_TRUE(parts) << parts.error().message;
    for (const std::string& name : whole->names())
      EXPECT_EQ(parts->load(name, **open_device("cpu"), DType::kF32)->to_f32(),
                whole->load(name, **open_device("cpu"), DType::kF32)->to_f32())
          << name << ", file " << of;
  }
}

/// The weights are those of all files. (Fails where the first alone is hashed.)
TEST(GgufModel, AByteOfAnyFileMakesOtherWeights) {
  const std::string path = write_split("hashed");
  const auto root = [&] { return GgufModel::open(path + part_name(0))->weights_root({}).value(); };
  const std::string sound = root();
  for (size_t of = 0; of < 3; ++of) {
    const std::string file = path + part_name(of), bytes = read_file(file).value();
    std::string changed = bytes;
    changed.back() = static_cast<char>(changed.back() ^ 1);
    ASSERT_TRUE(write_file_atomic(file, changed));
    EXPECT_NE(root(), sound) << file;
    ASSERT_TRUE(write_file_atomic(file, bytes));
    EXPECT_EQ(root(), sound) << file;
  }
}

/// Whatever is wrong with a file of several is said of that file.
TEST(GgufModel, AFileOfSeveralIsCalledByItsName) {
  const std::string path = write_split("wrong");
  const auto refused = [&](const std::string& file) {
    Result<GgufModel> model = GgufModel::open(path + part_name(0));
    Status error = model ? Status{Code::kNotFound, "nothing"} : model.error();
    if (model)
      for (const std::string& name : model->names())
        if (const Result<Tensor> t = model->load(name, **open_device("cpu"), DType::kF32); !t)
          error = t.error();
    EXPECT_EQ(error.code, Code::kCorrupt) << error.message;
    EXPECT_EQ(error.message.substr(0, file.size() + 2), file + ": ");
    return error.message;
  };
  for (size_t of = 0; of < 3; ++of) {
    const std::string file = path + part_name(of), bytes = read_file(file).value();
    ASSERT_TRUE(write_file_atomic(file, bytes.substr(0, bytes.size() - 4)));
    EXPECT_NE(refused(file).find("it is cut short"), std::string::npos);
    ASSERT_TRUE(write_file_atomic(file, "no model, " + bytes));
    EXPECT_NE(refused(file).find("is not a GGUF file"), std::string::npos);
    const float none = std::numeric_limits<float>::quiet_NaN();
    std::string damaged = bytes.substr(0, bytes.size() - sizeof none);
    damaged.append(reinterpret_cast<const char*>(&none), sizeof none);
    ASSERT_TRUE(write_file_atomic(file, damaged));
    EXPECT_NE(refused(file).find("a number that is not finite"), std::string::npos);
    ASSERT_TRUE(write_file_atomic(file, bytes));
  }
}

TEST(GgufModel, FilesThatAreNotOneModelAreRefused) {
  const auto refused = [](const std::string& path, Code code, const std::string& words) {
    const Result<GgufModel> model = GgufModel::open(path);
    ASSERT_FALSE(model) << path;
    EXPECT_EQ(model.error().code, code) << model.error().message;
    EXPECT_NE(model.error().message.find(words), std::string::npos) << model.error().message;
  };
  const std::string sound = write_split("sound");
  refused(sound + "-00002-of-00003.gguf",
          Code::kInvalidInput,
          "is file 2 of 3 that make one model; name the first");
  ASSERT_TRUE(rename_path(sound + "-00001-of-00003.gguf", sound + ".gguf"));
  refused(sound + ".gguf", Code::kInvalidInput, "its name must end in -00001-of-00003.gguf");
  const std::string second = write_split("second");
  ASSERT_TRUE(remove_tree(second + "-00002-of-00003.gguf"));
  refused(second + "-00001-of-00003.gguf",
          Code::kNotFound,
          second + "-00002-of-00003.gguf: is missing, file 2 of 3");
  const std::string other = write_split(
      "other",
      {.of = 2, .keys = [](Builder& b) { b.key_u32("split.no", 1).key_u32("split.count", 3); }});
  refused(other + "-00001-of-00003.gguf", Code::kCorrupt, "calls itself file 2 of 3, not 3 of 3");
  const std::string twice = write_split("twice");
  ASSERT_TRUE(rename_path(write_split("shifted", {.first = 3}) + "-00002-of-00003.gguf",
                          twice + "-00002-of-00003.gguf"));
  refused(twice + "-00001-of-00003.gguf", Code::kCorrupt, "is in ");
  refused(write_split("fewer", {.tensors = 14}) + "-00001-of-00003.gguf",
          Code::kCorrupt,
          "announces 14 tensors in 3 files, which hold 13");
  EXPECT_EQ(gguf_files("a-00002-of-00003.gguf"), std::vector<std::string>{"a-00002-of-00003.gguf"});
  EXPECT_EQ(gguf_files("a-00001-of-0003.gguf").size(), 1u);
  EXPECT_EQ(gguf_files("a-00001-of-00000.gguf").size(), 1u);
  EXPECT_EQ(gguf_files("a-00001-of-00002.gguf"),
            (std::vector<std::string>{"a-00001-of-00002.gguf", "a-00002-of-00002.gguf"}));
}

/// With a key that is left unread another model would answer. (The file ends after these keys, so that
/// what is accepted is refused for its first missing size.)
TEST(Gguf, KeysThatChangeTheModelAreRefused) {
  const auto with = [](const char* arch, const char* key, auto value) {
    Builder b;
    b.header(0, 2).key_text("general.architecture", arch).text(std::string(arch) + "." + key);
    if constexpr (std::is_same_v<decltype(value), bool>)
      b.put(uint32_t{7}).put(static_cast<char>(value));
    else if constexpr (std::is_same_v<decltype(value), float>)
      b.put(uint32_t{6}).put(value);
    else
      b.put(uint32_t{4}).put(static_cast<uint32_t>(value));
    Result<GgufFile> file = b.parse();
    EXPECT_TRUE(file) << file.error().message;
    const Result<GgufModel> model = GgufModel::of(std::move(*file));
    return model ? "accepted" : model.error().message;
  };
  const std::string missing = "block_count\" is missing";
  for (const char* const arch : {"llama", "qwen2"}) {
    const auto refused = [&](const char* key, auto value) {
      const std::string got = with(arch, key, value);
      EXPECT_NE(got.find("'" + std::string(arch) + "." + key + "'"), std::string::npos) << got;
      EXPECT_EQ(got.find("is missing"), std::string::npos) << got;
    };
    const auto accepted = [&](const char* key, auto value) {
      const std::string got = with(arch, key, value);
      EXPECT_NE(got.find(missing), std::string::npos) << key << ": " << got;
    };
    refused("rope.scaling.attn_factor", 0.5f);
    refused("rope.scaling.attn_factor", 0.f);  // llama.cpp multiplies by it
    accepted("rope.scaling.attn_factor", 1.f);
    accepted("rope.scaling.yarn_log_multiplier", 0.f);
    accepted("rope.scaling.yarn_attn_factor", 1.25f);
    accepted("rope.scaling.yarn_ext_factor", -1.f);
    accepted("rope.scaling.yarn_beta_fast", 16.f);
    refused("rope.scaling.yarn_log_multiplier", 0.1f);
    refused("attention.scale", 0.25f);
    refused("attention.causal", false);
    refused("attention.sliding_window", 16);
    refused("attention.clamp_kqv", 8.f);
    refused("final_logit_softcapping", 30.f);
    refused("attn_logit_softcapping", 50.f);
    refused("logit_scale", 16.f);
    refused("residual_scale", 0.2f);
    refused("embedding_scale", 12.f);
    refused("a_key_that_nobody_knows", 0);
    accepted("attention.causal", true);
    refused("nextn_predict_layers", 1);
    accepted("rope.scaling.factor", 1.f);
    accepted("rope.scale_linear", 0.f);
    accepted("logit_scale", 1.f);
    accepted("final_logit_softcapping", 0.f);
    accepted("vocab_size", 300);
    accepted("expert_used_count", 0);
    accepted("rope.scaling.original_context_length", 4096);
  }
  EXPECT_NE(with("llama", "feed_forward_length", 8).find(missing), std::string::npos);
}

}  // namespace
}  // namespace ferry
