// What a snapshot must have is asked for again before it is called lost, and asked for in vain it is.
#include <gmock/gmock.h>

#include <atomic>

#include "storage/retrying_store.h"
#include "tests/support/fake_clock.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::MemoryStore;
using test::page_bytes;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Promised : public test::SnapshotFixture {
 protected:
  struct Fault {
    const char* name;
    std::function<void(std::string& body)> act;  // throws, or changes what came
  };
  static std::vector<Fault> faults() {
    return {
        {"404",
         [](std::string&) {
           throw StoreError(Code::not_found, "get x: http://h: answered 404 Not Found", "", false, std::nullopt, "404");
         }},
        {"HTML", [](std::string& body) { body = "<html><body>Please log in</body></html>"; }},
        {"too large", [](std::string& body) { body.append(80 << 20, ' '); }},
        {"truncated", [](std::string& body) { body.resize(body.size() / 2); }},
        {"nothing", [](std::string& body) { body.clear(); }},
        {"a bit", [](std::string& body) { body[body.size() / 2] ^= 4; }},
        {"503",
         [](std::string&) {
           throw StoreError(Code::unavailable, "get x: http://h: answered 503", "", true, std::nullopt, "503");
         }},
    };
  }
  // What reading ends with when the first `times` answers for `object` are so.
  std::string reading(const std::string& object, const Fault& fault, int times) {
    auto spoiled = store.copy();
    std::atomic<int> left = times;
    spoiled->on_get = [&](const std::string& name, std::string& body) {
      if (name == object && left-- > 0) fault.act(body);
    };
    const auto retrying = make_retrying_store(
        std::move(spoiled), {.tries = 8, .first_delay = Millis(500), .max_delay = Millis(30000)}, clock);
    return reading_fails_with(*retrying);
  }
  FakeClock clock;
};

TEST_F(Promised, OneWrongAnswerIsNoLoss) {
  write(page_bytes(4 * kSegment, 1));
  for (const std::string object :
       {"snap/manifest.json", "snap/index-000001.json", "snap/segment-00000001", "snap/segment-00000004"}) {
    for (const Fault& fault : faults()) {
      for (const int times : {1, 3})
        EXPECT_EQ(reading(object, fault, times), "") << object << ": " << fault.name << " " << times;
    }
  }
  EXPECT_FALSE(clock.slept().empty());
}

TEST_F(Promised, WhatStaysSoIsSaid) {
  write(page_bytes(4 * kSegment, 1));
  for (const std::string object :
       {"snap/manifest.json", "snap/index-000001.json", "snap/segment-00000001", "snap/segment-00000004"}) {
    const bool manifest = object == "snap/manifest.json";
    for (const Fault& fault : faults()) {
      const std::string name = fault.name, failure = reading(object, fault, 1000000);
      const std::string code = name == "503"               ? "UNAVAILABLE: "
                               : name == "404" && manifest ? "NOT_FOUND: "
                                                           : "DATA_LOSS: ";
      EXPECT_THAT(failure, StartsWith(code)) << object << ": " << name;
      EXPECT_THAT(failure, HasSubstr("get " + object)) << name;
      EXPECT_THAT(failure, HasSubstr(name == "503" ? ": 8 tries in " : ": 4 tries in "));
    }
  }
}

}  // namespace
}  // namespace guestagent
