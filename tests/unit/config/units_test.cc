#include "config/units.h"

#include <gmock/gmock.h>

namespace guestagent {
namespace {

TEST(ParseSize, KnowsItsUnits) {
  EXPECT_EQ(parse_size("0"), 0u);
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("7B"), 7u);
  EXPECT_EQ(parse_size("512KiB"), 512u * 1024);
  EXPECT_EQ(parse_size("32MiB"), 32u << 20);
  EXPECT_EQ(parse_size("32 MiB"), 32u << 20);
  EXPECT_EQ(parse_size("4GiB"), std::uint64_t{4} << 30);
  EXPECT_EQ(parse_size("1TiB"), std::uint64_t{1} << 40);
  EXPECT_EQ(parse_size("1M"), 1u << 20);
  EXPECT_EQ(parse_size("1MB"), 1000000u);
  EXPECT_EQ(parse_size("18446744073709551615"), UINT64_MAX);
}

TEST(ParseSize, RefusesTheRest) {
  for (const std::string_view text :
       {"", "MiB", "-1", "+1", "1.5GiB", "1e6", "32mib", "32Mib", "32  MiB", "32MiB ", " 32MiB", "0x10", "32MiBs",
        "18446744073709551616", "17179869184GiB", "99999999999999999999999TiB"}) {
    EXPECT_EQ(parse_size(text), std::nullopt) << text;
  }
}

TEST(ParseDuration, KnowsItsUnits) {
  EXPECT_EQ(parse_duration("0"), Millis(0));
  EXPECT_EQ(parse_duration("500ms"), Millis(500));
  EXPECT_EQ(parse_duration("30s"), Millis(30000));
  EXPECT_EQ(parse_duration("10m"), Millis(600000));
  EXPECT_EQ(parse_duration("24h"), Millis(86400000));
  EXPECT_EQ(parse_duration("7d"), Millis(7 * 86400000));
  EXPECT_EQ(parse_duration("1h30m"), Millis(5400000));
  EXPECT_EQ(parse_duration("1d2h3m4s5ms"), Millis(93784005));
}

TEST(ParseDuration, RefusesTheRest) {
  for (const std::string_view text :
       {"", "5", "00", "s", "-5s", "5 s", "5S", "1.5h", "5s ", "5sec", "30m1h", "1h1h", "5s5", "1w",
        "99999999999999999999d", "40000d", "9223372036854775807ms", "36600d36600d"}) {
    EXPECT_EQ(parse_duration(text), std::nullopt) << text;
  }
}

TEST(ParseMode, IsOctal) {
  EXPECT_EQ(parse_mode("0660"), 0660u);
  EXPECT_EQ(parse_mode("660"), 0660u);
  EXPECT_EQ(parse_mode("0o600"), 0600u);
  for (const std::string_view text : {"", "6", "0680", "1777", "rw-rw----", "-660", "066000", "0x1b0"}) {
    EXPECT_EQ(parse_mode(text), std::nullopt) << text;
  }
}

TEST(Format, IsTheShortestThatParsesBack) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(32 << 20), "32MiB");
  EXPECT_EQ(format_size(160 << 20), "160MiB");
  EXPECT_EQ(format_size(1000), "1000");
  EXPECT_EQ(format_size(1024), "1KiB");
  EXPECT_EQ(format_duration(Millis(0)), "0");
  EXPECT_EQ(format_duration(Millis(90000)), "90s");
  EXPECT_EQ(format_duration(Millis(3600000)), "1h");
  EXPECT_EQ(format_duration(Millis(1500)), "1500ms");
  for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{1} << 40, UINT64_MAX})
    EXPECT_EQ(parse_size(format_size(bytes)), bytes);
}

}  // namespace
}  // namespace guestagent
