#include "object_store_suite.h"
#include "storage/retrying_store.h"
#include "support/fake_clock.h"
#include "support/memory_store.h"

namespace guestagent {
namespace {

StoreUnderTest plain_memory() {
  return {nullptr, std::make_unique<test::MemoryStore>()};
}

StoreUnderTest retrying_memory() {
  auto clock = std::make_shared<FakeClock>();
  auto store = make_retrying_store(std::make_unique<test::MemoryStore>(), {}, *clock);
  return {clock, std::move(store)};
}

INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreContract,
                         testing::Values(StoreKind{"plain", plain_memory}, StoreKind{"retrying", retrying_memory}),
                         kind_name);

}  // namespace
}  // namespace guestagent
