#include "base/calendar.h"

#include <charconv>
#include <chrono>
#include <ctime>

#include "base/clock.h"

namespace ferry {
namespace {

std::optional<int> digits(std::string_view text) {
  int value = 0;
  for (const char c : text)
    if (c < '0' || c > '9') return std::nullopt;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Moment Moment::now() { return {system_clock().unix_ms(), Zone::kLocal}; }

std::string Moment::written(const std::string& format) const {
  const std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  zone == Zone::kUtc ? ::gmtime_r(&seconds, &parts) : ::localtime_r(&seconds, &parts);
  std::string out(8192, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &parts));
  return out;
}

Moment Moment::another_day() const {
  constexpr int64_t kDayMs = 86'400'000;
  return {unix_ms + 400 * kDayMs, zone};  // a year, five weeks and a day
}

std::optional<Moment> noon_of(std::string_view day) {
  if (day.size() != 10 || day[4] != '-' || day[7] != '-') return std::nullopt;
  const auto y = digits(day.substr(0, 4)), m = digits(day.substr(5, 2)), d = digits(day.substr(8));
  if (!y || !m || !d) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*y),
                                         std::chrono::month(static_cast<unsigned>(*m)),
                                         std::chrono::day(static_cast<unsigned>(*d))};
  if (!date.ok()) return std::nullopt;
  const auto noon = std::chrono::sys_days(date) + std::chrono::hours(12);
  return Moment{
      std::chrono::duration_cast<std::chrono::milliseconds>(noon.time_since_epoch()).count()};
}

}  // namespace ferry
