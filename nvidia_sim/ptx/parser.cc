#include "ptx/parser.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "ptx/lexer.h"

namespace nvidia_sim {
namespace {

constexpr uint64_t kVariableBytesMax = uint64_t{1} << 20;
constexpr uint64_t kRegistersMax = 1 << 16;
constexpr size_t kStatementsMax = 1 << 20;

struct TypeName {
  const char* name;
  Type type;
};
constexpr TypeName kTypes[] = {
    {"pred", Type::kPred},
    {"b8", Type::kB8},
    {"u8", Type::kU8},
    {"s8", Type::kS8},
    {"b16", Type::kB16},
    {"u16", Type::kU16},
    {"s16", Type::kS16},
    {"b32", Type::kB32},
    {"u32", Type::kU32},
    {"s32", Type::kS32},
    {"b64", Type::kB64},
    {"u64", Type::kU64},
    {"s64", Type::kS64},
    {"f32", Type::kF32},
    {"f64", Type::kF64},
};

class Parser {
 public:
  explicit Parser(std::string_view text) : tokens_(tokens_of(text)) {}

  Module module() {
    while (peek().kind != Token::Kind::kEnd) top_level();
    if (module_.version == 0) throw PtxError(1, "no .version");
    if (module_.target == 0) throw PtxError(1, "no .target");
    return std::move(module_);
  }

 private:
  // --- tokens ---

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool accept(char mark) {
    if (!peek().is(mark)) return false;
    take();
    return true;
  }
  [[noreturn]] void refuse(const std::string& what) const { throw PtxError(peek().line, what); }
  void expect(char mark) {
    if (!accept(mark)) refuse(std::string("expected '") + mark + "', found " + peek().text);
  }
  std::string word() {
    if (peek().kind != Token::Kind::kWord) refuse("expected a name, found " + peek().text);
    return take().text;
  }
  uint64_t number(uint64_t most) {
    if (peek().kind != Token::Kind::kNumber) refuse("expected a number, found " + peek().text);
    if (peek().value > most) refuse("a number beyond " + std::to_string(most));
    return take().value;
  }
  Type type_word() {
    expect('.');
    const std::string name = word();
    if (const std::optional<Type> type = type_named(name)) return *type;
    refuse("the type ." + name + " is not part of software NVIDIA");
  }

  // --- the module ---

  void top_level() {
    expect('.');
    const std::string directive = word();
    if (directive == "version") return version();
    if (directive == "target") return target();
    if (directive == "address_size") {
      if (number(64) != 64) refuse("addresses of 64 bits are all there are");
    } else if (directive == "visible" || directive == "weak") {
      // How the linker sees what follows: there is no linker.
    } else if (directive == "extern") {
      expect('.');
      if (word() != "shared") refuse("of .extern there is .shared alone");
      module_.shared.push_back(variable());
      expect(';');
    } else if (directive == "shared") {
      module_.shared.push_back(variable());
      expect(';');
    } else if (directive == "entry") {
      entry();
    } else if (directive == "file") {
      number(UINT32_MAX);
      take();
      while (accept(',')) number(UINT64_MAX);
    } else {
      refuse("." + directive + " is not part of software NVIDIA");
    }
  }

  /// "9.0" comes as a number, a point and a number.
  void version() {
    const uint64_t major = number(99);
    expect('.');
    module_.version = static_cast<int>(major * 10 + number(9));
  }

  void target() {
    const std::string name = word();
    uint64_t number = 0;
    size_t at = 3;
    if (name.rfind("sm_", 0) == 0)
      for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && number < 1000; ++at)
        number = number * 10 + static_cast<uint64_t>(name[at] - '0');
    if (number == 0 || (at != name.size() && name.substr(at) != "a"))
      refuse("the target " + name + " is not known");
    module_.target = static_cast<int>(number);
    while (accept(',')) word();  // options: debug, texmode_independent
  }

  /// [.align N] .type name[bytes] or name[] behind .shared or .param
  Variable variable() {
    Variable v;
    if (peek().is('.') && peek(1).text == "align") {
      take(), take();
      v.align = number(1024);
      if (v.align == 0 || (v.align & (v.align - 1)) != 0)
        refuse("an alignment that is no power of 2");
    }
    const Type type = type_word();
    const auto size = static_cast<uint64_t>(size_of(type));
    if (size == 0) refuse("a variable of predicates");
    v.align = std::max(v.align, size);
    if (peek().is('.') && peek(1).text == "ptr") {  // what nvcc knows of a pointer
      take(), take();
      while (accept('.'))
        if (word() == "align") number(UINT32_MAX);
    }
    v.name = word();
    v.bytes = size;
    if (accept('[')) {
      v.bytes = peek().is(']') ? 0 : size * number(kVariableBytesMax);
      expect(']');
    }
    return v;
  }

  // --- a kernel ---

  void entry() {
    Entry e;
    e.line = peek().line;
    e.name = word();
    if (accept('(')) {
      while (!accept(')')) {
        if (!e.params.empty()) expect(',');
        expect('.');
        if (word() != "param") refuse("expected .param");
        e.params.push_back(variable());
        if (e.params.back().bytes == 0) refuse("a parameter without a size");
      }
    }
    while (accept('.')) {
      const std::string directive = word();
      uint64_t threads = number(UINT32_MAX);
      while (accept(',')) threads = std::min<uint64_t>(threads * number(1024), UINT32_MAX);
      if (directive == "maxntid")
        e.threads_max = static_cast<uint32_t>(threads);
      else if (directive == "reqntid")
        e.threads_required = static_cast<uint32_t>(threads);
      else if (directive != "minnctapersm" && directive != "maxnreg")
        refuse("." + directive + " is not part of software NVIDIA");
    }
    expect('{');
    entry_ = &e;
    body(e);
    entry_ = nullptr;
    const auto same = [&](const Entry& other) { return other.name == e.name; };
    if (std::any_of(module_.entries.begin(), module_.entries.end(), same))
      refuse("two kernels are called " + e.name);
    module_.entries.push_back(std::move(e));
  }

  /// Blocks in braces, which inline assembly makes, share the kernel's registers: a name that comes
  /// again is the same register, and must be of the same type.
  void body(Entry& e) {
    for (int depth = 1; depth > 0;) {
      if (peek().kind == Token::Kind::kEnd) refuse("the kernel " + e.name + " does not end");
      if (accept('{')) {
        ++depth;
      } else if (accept('}')) {
        --depth;
      } else if (peek().is('.')) {
        directive(e);
      } else if (peek().kind == Token::Kind::kWord && peek(1).is(':') && !peek(2).is(':')) {
        const std::string label = word();
        take();
        if (!e.labels.emplace(label, e.body.size()).second) refuse("two labels " + label);
      } else {
        e.body.push_back(statement());
        if (e.body.size() > kStatementsMax) refuse("more statements than software NVIDIA takes");
      }
    }
  }

  void directive(Entry& e) {
    expect('.');
    const std::string name = word();
    if (name == "reg") {
      registers(e);
      expect(';');
    } else if (name == "shared") {
      e.shared.push_back(variable());
      expect(';');
    } else if (name == "pragma") {
      take();
      expect(';');
    } else if (name == "loc") {
      for (int i = 0; i < 3; ++i) number(UINT32_MAX);
      while (accept(',')) {  // function_name, inlined_at
        word();
        while (!peek().is(',') && peek().line == peek(1).line) take();
      }
    } else {
      refuse("." + name + " is not part of software NVIDIA");
    }
  }

  /// .reg .b32 %r<12>, x, y;
  void registers(Entry& e) {
    const Type type = type_word();
    if (size_of(type) == 1) refuse("registers have 16 bits or more");
    const auto declare = [&](const std::string& name) {
      const auto [at, fresh] = e.registers.emplace(name, type);
      if (!fresh && at->second != type) refuse(name + " is declared with two types");
      if (e.registers.size() > kRegistersMax) refuse("more registers than software NVIDIA has");
    };
    do {
      const std::string name = word();
      if (accept('<')) {
        const uint64_t count = number(kRegistersMax);
        expect('>');
        for (uint64_t i = 0; i < count; ++i) declare(name + std::to_string(i));
      } else {
        declare(name);
      }
    } while (accept(','));
  }

  Statement statement() {
    Statement s;
    s.line = peek().line;
    if (accept('@')) {
      s.guard_negated = accept('!');
      s.guard = word();
    }
    s.opcode.push_back(word());
    while (accept('.')) {
      std::string part = word();
      while (peek().is(':') && peek(1).is(':')) {  // shared::cta
        take(), take();
        part += "::" + word();
      }
      s.opcode.push_back(std::move(part));
    }
    while (!accept(';')) {
      if (!s.operands.empty()) expect(',');
      s.operands.push_back(operand());
      if (s.operands.size() > 16) refuse("more operands than any instruction has");
    }
    return s;
  }

  /// Names in inline assembly need no % in front.
  bool is_register(const std::string& name) const {
    return name[0] == '%' || (entry_ != nullptr && entry_->registers.contains(name));
  }

  int64_t signed_number() {
    const bool minus = accept('-');
    if (peek().kind != Token::Kind::kNumber) refuse("expected a number, found " + peek().text);
    const uint64_t value = take().value;
    return static_cast<int64_t>(minus ? uint64_t{0} - value : value);
  }

  Operand operand(bool in_vector = false) {
    Operand o;
    if (!in_vector && accept('{')) {
      o.kind = Operand::Kind::kVector;
      do o.parts.push_back(operand(true));
      while (accept(','));
      if (o.parts.size() > 8) refuse("a vector of more than 8");
      expect('}');
      return o;
    }
    if (!in_vector && accept('[')) return address();
    if (peek().kind == Token::Kind::kFloat) {
      o.kind = Operand::Kind::kFloat;
      o.float_bytes = peek().float_bytes;
      o.value = static_cast<int64_t>(take().value);
      return o;
    }
    if (peek().is('-') || peek().kind == Token::Kind::kNumber) {
      o.kind = Operand::Kind::kInteger;
      o.value = signed_number();
      return o;
    }
    o.negated = accept('!');
    o.name = word();
    if (o.name == "_") return o;
    o.kind = is_register(o.name) ? Operand::Kind::kRegister : Operand::Kind::kSymbol;
    if (o.kind == Operand::Kind::kRegister && accept('.')) o.name += "." + word();
    if (accept('|')) o.second = word();
    return o;
  }

  Operand address() {
    Operand o;
    o.kind = Operand::Kind::kAddress;
    if (peek().kind == Token::Kind::kWord) {
      o.name = word();
      o.in_register = is_register(o.name);
      if (accept('+'))
        o.value = signed_number();
      else if (peek().is('-'))
        o.value = signed_number();
    } else {
      o.value = signed_number();
    }
    expect(']');
    return o;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Module module_;
  const Entry* entry_ = nullptr;  // whose body is being read
};

}  // namespace

std::optional<Type> type_named(const std::string& name) {
  for (const TypeName& t : kTypes)
    if (name == t.name) return t.type;
  return std::nullopt;
}

int size_of(Type type) {
  switch (type) {
    case Type::kPred: return 0;
    case Type::kB8:
    case Type::kU8:
    case Type::kS8: return 1;
    case Type::kB16:
    case Type::kU16:
    case Type::kS16: return 2;
    case Type::kB32:
    case Type::kU32:
    case Type::kS32:
    case Type::kF32: return 4;
    case Type::kB64:
    case Type::kU64:
    case Type::kS64:
    case Type::kF64: return 8;
  }
  return 0;
}

bool is_float(Type type) { return type == Type::kF32 || type == Type::kF64; }

std::string Statement::name() const {
  std::string all;
  for (const std::string& part : opcode) all += (all.empty() ? "" : ".") + part;
  return all;
}

Module parse_ptx(std::string_view text) { return Parser(text).module(); }

}  // namespace nvidia_sim
