// One suite for every store: object_store_suite.cc has the tests, a file for each store says how to make one.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "storage/object_store.h"

namespace guestagent {

struct StoreUnderTest {
  std::shared_ptr<void> keep;  // what the store stands on: dies after it
  std::unique_ptr<ObjectStore> store;
};

struct StoreKind {
  std::string name;
  std::function<StoreUnderTest()> make;  // empty, with a root of its own
  bool joins = false;
  friend void PrintTo(const StoreKind& kind, std::ostream* out) { *out << kind.name; }
};

class ObjectStoreContract : public testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override;
  void TearDown() override;  // removes every object
  ObjectStore& store() { return *under_test_.store; }
  StoreUnderTest under_test_;
};

inline std::string kind_name(const testing::TestParamInfo<StoreKind>& info) {
  return info.param.name;
}

// `size` bytes that differ by place and by `seed`.
Buffer test_bytes(std::size_t size, unsigned seed);

}  // namespace guestagent
