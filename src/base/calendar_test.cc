// Days that are, texts that are none, and times by two clocks.
#include "base/calendar.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace ferry {
namespace {

std::optional<int64_t> noon_unix_ms(std::string_view day) {
  const std::optional<Moment> noon = noon_of(day);
  return noon ? std::optional(noon->unix_ms) : std::nullopt;
}

TEST(Calendar, DaysAreRead) {
  EXPECT_EQ(noon_unix_ms("1970-01-01"), 43'200'000);
  EXPECT_EQ(noon_unix_ms("2026-11-30"), 1'796'040'000'000);  // date -u -d '2026-11-30 12:00' +%s
  EXPECT_EQ(noon_unix_ms("2024-02-29"), 1'709'208'000'000);
  for (const char* none : {"",
                           "2026",
                           "2023-02-29",
                           "2026-13-01",
                           "2026-00-01",
                           "2026-1-01",
                           "2026-11-3x",
                           "+026-11-30",
                           "2026-11-30 "})
    EXPECT_FALSE(noon_of(none)) << none;
}

/// Kiritimati has the next day when it is noon in UTC.
TEST(Calendar, ADayIsTheSameInEveryTimeZone) {
  constexpr const char* kFormat = "%A %d %b %Y %H:%M %z";
  const Moment noon = *noon_of("2026-11-30");
  for (const auto& [zone, local] : {std::pair{"<+14>-14", "Tuesday 01 Dec 2026 02:00 +1400"},
                                    {"<-12>12", "Monday 30 Nov 2026 00:00 -1200"}}) {
    ASSERT_EQ(::setenv("TZ", zone, 1), 0);
    ::tzset();
    EXPECT_EQ(noon.written(kFormat), "Monday 30 Nov 2026 12:00 +0000");
    EXPECT_EQ((Moment{noon.unix_ms, Moment::Zone::kLocal}.written(kFormat)), local);
  }
  EXPECT_EQ(Moment::now().zone, Moment::Zone::kLocal);
}

TEST(Calendar, AnotherDayIsAnotherInEachOfItsParts) {
  for (const char* day : {"2026-01-01", "2024-01-01", "2023-12-31", "2024-02-29", "2027-07-31"})
    for (const char* part : {"%d", "%b", "%Y", "%a"}) {
      const Moment noon = *noon_of(day);
      EXPECT_NE(noon.written(part), noon.another_day().written(part)) << day;
    }
}

}  // namespace
}  // namespace ferry
