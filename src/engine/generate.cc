#include "engine/generate.h"

#include "base/check.h"

namespace ferry::engine {

std::vector<Progress> step_through_faults(Engine& engine) {
  for (int faults = 1;; ++faults) {
    try {
      return engine.step();
    } catch (const OutOfDeviceMemory&) {
      throw;
    } catch (const DeviceError&) {
      if (faults == 3) throw;
    }
  }
}

Result<Generated> generate(Engine& engine,
                           Request request,
                           const std::function<bool(const Token&)>& on_token,
                           const std::function<bool()>& on_pass) {
  check(engine.idle(), "generate: the engine has other requests");
  TRY_ASSIGN(const RequestId id, engine.submit(std::move(request)));
  Generated out;
  bool stopped = false;
  const auto stop = [&] {
    stopped = true;
    engine.cancel(id);
  };
  while (!engine.idle()) {
    const std::vector<Progress> news = step_through_faults(engine);
    if (out.tokens.empty() && on_pass && !on_pass()) stop();
    for (const Progress& p : news) {
      if (p.finish == Finish::kFailed) return tl::unexpected(p.error);
      out.prompt.insert(out.prompt.end(), p.prompt.begin(), p.prompt.end());
      for (const Token& t : p.tokens) {
        if (stopped) break;
        out.tokens.push_back(t.id);
        if (!on_token(t)) stop();
      }
      if (!stopped) out.finish = p.finish;
    }
  }
  return out;
}

}  // namespace ferry::engine
