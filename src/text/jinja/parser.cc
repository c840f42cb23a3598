#include "text/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "base/json.h"
#include "text/jinja/lexer.h"

namespace ferry::text::jinja {
namespace {

using Kind = Node::Kind;
using Tok = Token::Kind;

constexpr int kDepthMax = 100;

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& path)
      : tokens_(std::move(tokens)), path_(path) {}

  Result<NodePtr> run() {
    TRY_ASSIGN(NodePtr block, statements({}));
    return block;
  }

 private:
  /// Counts the levels of a recursive function; ok() is false at the limit.
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) { ++depth_; }
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    bool ok() const { return depth_ <= kDepthMax; }

   private:
    int& depth_;
  };

  const Token& here(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  bool at(Tok kind) const { return here().kind == kind; }
  bool at_operator(std::string_view op) const { return at(Tok::kOperator) && here().text == op; }
  bool at_name(std::string_view name) const { return at(Tok::kName) && here().text == name; }
  bool take_operator(std::string_view op) { return at_operator(op) && ++at_; }
  bool take_name(std::string_view name) { return at_name(name) && ++at_; }

  NodePtr make(Kind kind, std::string text = "") const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = here().line;
    node->text = std::move(text);
    return node;
  }

  template <class... Kids>
  NodePtr make_with(Kind kind, std::string text, Kids... kids) const {
    NodePtr node = make(kind, std::move(text));
    (node->kids.push_back(std::move(kids)), ...);
    if (!node->kids.empty() && node->kids[0]) node->line = node->kids[0]->line;
    return node;
  }

  std::string what_is_here() const {
    switch (here().kind) {
      case Tok::kEnd: return "the template ends";
      case Tok::kTagEnd: return "the tag ends";
      case Tok::kPrintEnd: return "the expression ends";
      default: return printable(here().text) + " stands";
    }
  }

  template <class... Args>
  tl::unexpected<Status> wrong(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(Code::kInvalidInput,
                "{}: line {}: {}",
                path_,
                here().line,
                fmt::format(format, std::forward<Args>(args)...));
  }

  Result<void> expect_operator(std::string_view op) {
    if (take_operator(op)) return {};
    return wrong("{} where \"{}\" is expected", what_is_here(), op);
  }
  Result<void> expect_name(std::string_view name) {
    if (take_name(name)) return {};
    return wrong("{} where \"{}\" is expected", what_is_here(), name);
  }
  Result<void> end_tag() {
    if (!at(Tok::kTagEnd)) return wrong("{} where the tag should end", what_is_here());
    ++at_;
    return {};
  }
  Result<std::string> identifier(const char* of) {
    if (!at(Tok::kName)) return wrong("{} where the name of {} is expected", what_is_here(), of);
    return tokens_[at_++].text;
  }

  // ---- statements

  /// Up to a tag that begins with one of `ends`, on whose name the parser is left; or to the end.
  Result<NodePtr> statements(std::initializer_list<std::string_view> ends) {
    const Level level(depth_);
    if (!level.ok()) return wrong("blocks are nested more than {} deep", kDepthMax);
    NodePtr block = make(Kind::kBlock);
    for (;;) {
      if (at(Tok::kEnd)) {
        if (ends.size() > 0)
          return wrong("the template ends where {{% {} %}} is expected", *(ends.end() - 1));
        return block;
      }
      if (at(Tok::kData)) {
        block->kids.push_back(make(Kind::kText, here().text));
        ++at_;
      } else if (at(Tok::kPrintBegin)) {
        ++at_;
        TRY_ASSIGN(NodePtr value, expressions());
        if (!at(Tok::kPrintEnd)) return wrong("{} where \"}}}}\" is expected", what_is_here());
        ++at_;
        block->kids.push_back(make_with(Kind::kOutput, "", std::move(value)));
      } else {
        ++at_;  // {%
        if (!at(Tok::kName)) return wrong("{} where a tag's name is expected", what_is_here());
        if (std::find(ends.begin(), ends.end(), here().text) != ends.end()) return block;
        TRY_ASSIGN(NodePtr node, statement());
        if (node) block->kids.push_back(std::move(node));
      }
    }
  }

  Result<NodePtr> statement() {
    const std::string name = here().text;
    if (take_name("if")) return if_statement();
    if (take_name("for")) return for_statement();
    if (take_name("set")) return set_statement();
    if (take_name("macro")) return macro();
    if (take_name("filter")) return filter_block();
    if (take_name("with")) return with();
    if (take_name("generation")) {  // marks what the model writes; nothing to do when rendering
      TRY(end_tag());
      TRY_ASSIGN(NodePtr block, statements({"endgeneration"}));
      ++at_;
      TRY(end_tag());
      return block;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return wrong("{} outside of a loop", name);
      NodePtr node = make(name == "break" ? Kind::kBreak : Kind::kContinue);
      ++at_;
      TRY(end_tag());
      return node;
    }
    return wrong("the tag {} is not supported in chat templates", printable(name));
  }

  Result<NodePtr> if_statement() {
    NodePtr node = make(Kind::kIf);
    for (;;) {
      TRY_ASSIGN(NodePtr condition, expressions());
      TRY(end_tag());
      TRY_ASSIGN(NodePtr block, statements({"elif", "else", "endif"}));
      node->kids.push_back(std::move(condition));
      node->kids.push_back(std::move(block));
      if (!take_name("elif")) break;
    }
    if (take_name("else")) {
      TRY(end_tag());
      TRY_ASSIGN(NodePtr block, statements({"endif"}));
      node->kids.push_back(nullptr);
      node->kids.push_back(std::move(block));
    }
    TRY(expect_name("endif"));
    TRY(end_tag());
    return node;
  }

  Result<std::vector<std::string>> targets(const char* of) {
    std::vector<std::string> names;
    const bool bracket = take_operator("(");
    do {
      if (!names.empty() && !at(Tok::kName)) break;  // a comma at the end
      TRY_ASSIGN(std::string name, identifier(of));
      names.push_back(std::move(name));
    } while (take_operator(","));
    if (bracket) TRY(expect_operator(")"));
    return names;
  }

  Result<NodePtr> for_statement() {
    NodePtr node = make(Kind::kFor);
    TRY_ASSIGN(node->words, targets("a loop's variable"));
    TRY(expect_name("in"));
    TRY_ASSIGN(NodePtr iterable, expressions(false));
    NodePtr filter, otherwise;
    if (take_name("if")) {
      TRY_ASSIGN(filter, expression());
    }
    if (at_name("recursive")) return wrong("recursive loops are not supported in chat templates");
    TRY(end_tag());
    ++loops_;
    TRY_ASSIGN(NodePtr block, statements({"else", "endfor"}));
    --loops_;
    if (take_name("else")) {
      TRY(end_tag());
      TRY_ASSIGN(otherwise, statements({"endfor"}));
    }
    TRY(expect_name("endfor"));
    TRY(end_tag());
    node->kids.push_back(std::move(iterable));
    node->kids.push_back(std::move(filter));
    node->kids.push_back(std::move(block));
    node->kids.push_back(std::move(otherwise));
    return node;
  }

  Result<NodePtr> set_statement() {
    NodePtr node = make(Kind::kSet);
    TRY_ASSIGN(node->words, targets("a variable"));
    if (node->words.size() == 1 && take_operator(".")) {
      TRY_ASSIGN(node->text, identifier("a field"));
    }
    if (take_operator("=")) {
      TRY_ASSIGN(NodePtr value, expressions());
      TRY(end_tag());
      node->kids.push_back(std::move(value));
      return node;
    }
    if (node->words.size() != 1 || !node->text.empty())
      return wrong("{} where \"=\" is expected", what_is_here());
    node->kind = Kind::kSetBlock;
    NodePtr filters;
    if (at_operator("|")) {
      TRY_ASSIGN(filters, filters_of(nullptr));
    }
    TRY(end_tag());
    TRY_ASSIGN(NodePtr block, statements({"endset"}));
    ++at_;
    TRY(end_tag());
    node->kids.push_back(std::move(block));
    node->kids.push_back(std::move(filters));
    return node;
  }

  Result<NodePtr> macro() {
    NodePtr node = make(Kind::kMacro);
    TRY_ASSIGN(node->text, identifier("a macro"));
    TRY(expect_operator("("));
    std::vector<NodePtr> defaults;
    while (!at_operator(")")) {
      if (!node->words.empty()) TRY(expect_operator(","));
      TRY_ASSIGN(std::string name, identifier("a parameter"));
      if (std::find(node->words.begin(), node->words.end(), name) != node->words.end())
        return wrong("the parameter {} is given twice", name);
      node->words.push_back(std::move(name));
      NodePtr value;
      if (take_operator("=")) {
        TRY_ASSIGN(value, expression());
      } else if (!defaults.empty() && defaults.back()) {
        return wrong("the parameter {} needs a default, as those before it", node->words.back());
      }
      defaults.push_back(std::move(value));
    }
    TRY(expect_operator(")"));
    TRY(end_tag());
    const int outer_loops = std::exchange(loops_, 0);
    TRY_ASSIGN(NodePtr block, statements({"endmacro"}));
    loops_ = outer_loops;
    ++at_;
    if (at(Tok::kName)) ++at_;  // its name may be repeated
    TRY(end_tag());
    node->kids.push_back(std::move(block));
    for (NodePtr& d : defaults) node->kids.push_back(std::move(d));
    return node;
  }

  Result<NodePtr> filter_block() {
    NodePtr node = make(Kind::kFilterBlock);
    TRY_ASSIGN(NodePtr filters, filters_of(nullptr, true));
    TRY(end_tag());
    TRY_ASSIGN(NodePtr block, statements({"endfilter"}));
    ++at_;
    TRY(end_tag());
    node->kids.push_back(std::move(filters));
    node->kids.push_back(std::move(block));
    return node;
  }

  Result<NodePtr> with() {
    NodePtr node = make(Kind::kWith);
    node->kids.push_back(nullptr);
    while (!at(Tok::kTagEnd)) {
      if (!node->words.empty()) TRY(expect_operator(","));
      TRY_ASSIGN(std::string name, identifier("a variable"));
      node->words.push_back(std::move(name));
      TRY(expect_operator("="));
      TRY_ASSIGN(NodePtr value, expression());
      node->kids.push_back(std::move(value));
    }
    TRY(end_tag());
    TRY_ASSIGN(node->kids[0], statements({"endwith"}));
    ++at_;
    TRY(end_tag());
    return node;
  }

  // ---- expressions, from the loosest binding to the tightest

  /// One, or a tuple of several without brackets.
  Result<NodePtr> expressions(bool conditional = true) {
    TRY_ASSIGN(NodePtr first, conditional ? expression() : or_expression());
    if (!at_operator(",")) return first;
    NodePtr tuple = make_with(Kind::kTuple, "", std::move(first));
    while (take_operator(",")) {
      if (at(Tok::kTagEnd) || at(Tok::kPrintEnd) || at_operator(")")) break;
      TRY_ASSIGN(NodePtr next, expression());
      tuple->kids.push_back(std::move(next));
    }
    return tuple;
  }

  Result<NodePtr> expression() {
    const Level level(depth_);
    if (!level.ok()) return wrong("expressions are nested more than {} deep", kDepthMax);
    TRY_ASSIGN(NodePtr value, or_expression());
    while (take_name("if")) {
      TRY_ASSIGN(NodePtr condition, or_expression());
      NodePtr otherwise;
      if (take_name("else")) {
        TRY_ASSIGN(otherwise, expression());
      }
      value = make_with(
          Kind::kConditional, "", std::move(condition), std::move(value), std::move(otherwise));
      TRY_ASSIGN(value, deeper(std::move(value)));
    }
    return value;
  }

  Result<NodePtr> or_expression() {
    TRY_ASSIGN(NodePtr left, and_expression());
    while (take_name("or")) {
      TRY_ASSIGN(NodePtr right, and_expression());
      TRY_ASSIGN(left, deeper(make_with(Kind::kOr, "", std::move(left), std::move(right))));
    }
    return left;
  }

  Result<NodePtr> and_expression() {
    TRY_ASSIGN(NodePtr left, not_expression());
    while (take_name("and")) {
      TRY_ASSIGN(NodePtr right, not_expression());
      TRY_ASSIGN(left, deeper(make_with(Kind::kAnd, "", std::move(left), std::move(right))));
    }
    return left;
  }

  Result<NodePtr> not_expression() {
    if (!at_name("not")) return compare();
    const Level level(depth_);
    if (!level.ok()) return wrong("expressions are nested more than {} deep", kDepthMax);
    ++at_;
    TRY_ASSIGN(NodePtr operand, not_expression());
    return make_with(Kind::kNot, "", std::move(operand));
  }

  Result<NodePtr> compare() {
    TRY_ASSIGN(NodePtr first, sum());
    NodePtr node;
    for (;;) {
      std::string op;
      for (const char* candidate : {"==", "!=", "<=", ">=", "<", ">"})
        if (at_operator(candidate)) op = candidate;
      if (!op.empty()) {
        ++at_;
      } else if (take_name("in")) {
        op = "in";
      } else if (at_name("not") && here(1).kind == Tok::kName && here(1).text == "in") {
        at_ += 2;
        op = "not in";
      } else {
        return node ? std::move(node) : std::move(first);
      }
      if (!node) node = make_with(Kind::kCompare, "", std::move(first));
      TRY_ASSIGN(NodePtr next, sum());
      node->words.push_back(op);
      node->kids.push_back(std::move(next));
    }
  }

  /// A tree that grows to the left is freed and walked by recursion, too: its height is limited.
  Result<NodePtr> deeper(NodePtr node) {
    if (++chained_ > kChainedMax)
      return wrong("an expression has more than {} operators", kChainedMax);
    return node;
  }

  Result<NodePtr> sum() {
    TRY_ASSIGN(NodePtr left, concat());
    while (at_operator("+") || at_operator("-")) {
      const std::string op = tokens_[at_++].text;
      TRY_ASSIGN(NodePtr right, concat());
      TRY_ASSIGN(left, deeper(make_with(Kind::kArithmetic, op, std::move(left), std::move(right))));
    }
    return left;
  }

  Result<NodePtr> concat() {
    TRY_ASSIGN(NodePtr first, product());
    if (!at_operator("~")) return first;
    NodePtr node = make_with(Kind::kConcat, "", std::move(first));
    while (take_operator("~")) {
      TRY_ASSIGN(NodePtr next, product());
      node->kids.push_back(std::move(next));
    }
    return node;
  }

  Result<NodePtr> product() {
    TRY_ASSIGN(NodePtr left, power());
    while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
      const std::string op = tokens_[at_++].text;
      TRY_ASSIGN(NodePtr right, power());
      TRY_ASSIGN(left, deeper(make_with(Kind::kArithmetic, op, std::move(left), std::move(right))));
    }
    return left;
  }

  Result<NodePtr> power() {
    TRY_ASSIGN(NodePtr left, unary(true));
    while (take_operator("**")) {
      TRY_ASSIGN(NodePtr right, unary(true));
      TRY_ASSIGN(left,
                 deeper(make_with(Kind::kArithmetic, "**", std::move(left), std::move(right))));
    }
    return left;
  }

  Result<NodePtr> unary(bool with_filters) {
    const Level level(depth_);
    if (!level.ok()) return wrong("expressions are nested more than {} deep", kDepthMax);
    NodePtr node;
    if (take_operator("-") || at_operator("+")) {
      const bool minus = !take_operator("+");
      TRY_ASSIGN(NodePtr operand, unary(false));
      node = make_with(minus ? Kind::kNegative : Kind::kPositive, "", std::move(operand));
    } else {
      TRY_ASSIGN(node, primary());
    }
    TRY_ASSIGN(node, postfix(std::move(node)));
    return with_filters ? filters_of(std::move(node)) : Result<NodePtr>(std::move(node));
  }

  Result<NodePtr> literal(Value value) {
    NodePtr node = make(Kind::kLiteral);
    node->value = std::move(value);
    ++at_;
    return node;
  }

  Result<NodePtr> primary() {
    const Token& t = here();
    switch (t.kind) {
      case Tok::kName:
        if (t.text == "true" || t.text == "True") return literal(true);
        if (t.text == "false" || t.text == "False") return literal(false);
        if (t.text == "none" || t.text == "None") return literal(Value());
        ++at_;
        return make(Kind::kName, tokens_[at_ - 1].text);
      case Tok::kText: {
        std::string text;
        for (; at(Tok::kText); ++at_) text += here().text;  // neighbours are one text
        --at_;
        return literal(std::move(text));
      }
      case Tok::kWhole: {
        int64_t v = 0;
        const auto end = t.text.data() + t.text.size();
        if (std::from_chars(t.text.data(), end, v).ec != std::errc())
          return wrong("the number {} is beyond 63 bits", t.text);
        return literal(v);
      }
      case Tok::kReal: {
        double v = 0;
        const auto end = t.text.data() + t.text.size();
        if (std::from_chars(t.text.data(), end, v).ec != std::errc())
          return wrong("the number {} is out of range", t.text);
        return literal(v);
      }
      default: break;
    }
    if (take_operator("(")) return bracket();
    if (take_operator("[")) return list();
    if (take_operator("{")) return dict();
    return wrong("{} where a value is expected", what_is_here());
  }

  Result<NodePtr> bracket() {
    if (take_operator(")")) return make(Kind::kTuple);
    TRY_ASSIGN(NodePtr value, expressions());
    TRY(expect_operator(")"));
    return value;
  }

  Result<NodePtr> list() {
    NodePtr node = make(Kind::kList);
    while (!at_operator("]")) {
      if (!node->kids.empty()) TRY(expect_operator(","));
      if (at_operator("]")) break;
      TRY_ASSIGN(NodePtr item, expression());
      node->kids.push_back(std::move(item));
    }
    ++at_;
    return node;
  }

  Result<NodePtr> dict() {
    NodePtr node = make(Kind::kDict);
    while (!at_operator("}")) {
      if (!node->kids.empty()) TRY(expect_operator(","));
      if (at_operator("}")) break;
      TRY_ASSIGN(NodePtr key, expression());
      TRY(expect_operator(":"));
      TRY_ASSIGN(NodePtr value, expression());
      node->kids.push_back(std::move(key));
      node->kids.push_back(std::move(value));
    }
    ++at_;
    return node;
  }

  Result<NodePtr> postfix(NodePtr node) {
    for (;;) {
      if (take_operator(".")) {
        if (at(Tok::kWhole)) {
          NodePtr index = make(Kind::kLiteral);
          index->value = int64_t{std::atoll(here().text.c_str())};
          ++at_;
          TRY_ASSIGN(node, deeper(make_with(Kind::kItem, "", std::move(node), std::move(index))));
          continue;
        }
        TRY_ASSIGN(std::string name, identifier("a field"));
        TRY_ASSIGN(node, deeper(make_with(Kind::kAttribute, std::move(name), std::move(node))));
      } else if (take_operator("[")) {
        TRY_ASSIGN(node, subscript(std::move(node)));
      } else if (at_operator("(")) {
        NodePtr call = make_with(Kind::kCall, "", std::move(node));
        TRY(arguments(*call));
        TRY_ASSIGN(node, deeper(std::move(call)));
      } else {
        return node;
      }
    }
  }

  Result<NodePtr> subscript(NodePtr of) {
    NodePtr parts[3];
    int part = 0;
    bool slice = false;
    while (!at_operator("]")) {
      if (at_operator(":")) {
        ++at_;
        slice = true;
        if (++part > 2) return wrong("a slice has at most three parts");
        continue;
      }
      if (parts[part]) return wrong("{} where \"]\" is expected", what_is_here());
      TRY_ASSIGN(parts[part], expression());
      if (at_operator(",")) return wrong("an index is one value");
    }
    ++at_;
    if (!slice && !parts[0]) return wrong("an index is missing");
    if (!slice) return deeper(make_with(Kind::kItem, "", std::move(of), std::move(parts[0])));
    return deeper(make_with(Kind::kSlice,
                            "",
                            std::move(of),
                            std::move(parts[0]),
                            std::move(parts[1]),
                            std::move(parts[2])));
  }

  /// "(a, b, name=c)" onto a call, filter or test.
  Result<void> arguments(Node& node) {
    TRY(expect_operator("("));
    bool first = true, named = false;
    while (!at_operator(")")) {
      if (!std::exchange(first, false)) TRY(expect_operator(","));
      if (at_operator(")")) break;
      if (at_operator("*") || at_operator("**"))
        return wrong("unpacked arguments are not supported in chat templates");
      std::string name;
      if (at(Tok::kName) && here(1).kind == Tok::kOperator && here(1).text == "=") {
        name = here().text;
        at_ += 2;
        named = true;
      } else if (named) {
        return wrong("an argument without a name follows one with a name");
      }
      TRY_ASSIGN(NodePtr value, expression());
      node.words.push_back(std::move(name));
      node.kids.push_back(std::move(value));
    }
    ++at_;
    return {};
  }

  /// Filters and tests behind a value. `bare`: the first filter stands without its "|".
  Result<NodePtr> filters_of(NodePtr node, bool bare = false) {
    for (;;) {
      if (bare || take_operator("|")) {
        bare = false;
        TRY_ASSIGN(std::string name, identifier("a filter"));
        NodePtr filter = make_with(Kind::kFilter, std::move(name), std::move(node));
        if (at_operator("(")) TRY(arguments(*filter));
        TRY_ASSIGN(node, deeper(std::move(filter)));
      } else if (take_name("is")) {
        TRY_ASSIGN(node, test(std::move(node)));
      } else if (node && at_operator("(")) {
        NodePtr call = make_with(Kind::kCall, "", std::move(node));
        TRY(arguments(*call));
        TRY_ASSIGN(node, deeper(std::move(call)));
      } else {
        return node;
      }
    }
  }

  Result<NodePtr> test(NodePtr of) {
    const bool negated = take_name("not");
    TRY_ASSIGN(std::string name, identifier("a test"));
    NodePtr node = make_with(Kind::kTest, std::move(name), std::move(of));
    if (at_operator("(")) {
      TRY(arguments(*node));
    } else if (at(Tok::kText) || at(Tok::kWhole) || at(Tok::kReal) || at_operator("[") ||
               at_operator("{") ||
               (at(Tok::kName) && !at_name("else") && !at_name("or") && !at_name("and") &&
                !at_name("is") && !at_name("if") && !at_name("not") && !at_name("in"))) {
      // One argument may stand without brackets.
      TRY_ASSIGN(NodePtr argument, primary());
      TRY_ASSIGN(argument, postfix(std::move(argument)));
      node->words.push_back("");
      node->kids.push_back(std::move(argument));
    }
    TRY_ASSIGN(node, deeper(std::move(node)));
    return negated ? make_with(Kind::kNot, "", std::move(node)) : std::move(node);
  }

  static constexpr int kChainedMax = 2000;  // operators, fields and calls of the whole template
  std::vector<Token> tokens_;
  const std::string& path_;
  size_t at_ = 0;
  int depth_ = 0, loops_ = 0, chained_ = 0;
};

}  // namespace

Result<NodePtr> parse(std::string_view source, const std::string& path) {
  TRY_ASSIGN(std::vector<Token> tokens, tokenize(source, path));
  return Parser(std::move(tokens), path).run();
}

}  // namespace ferry::text::jinja
