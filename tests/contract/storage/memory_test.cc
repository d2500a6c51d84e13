#include "object_store_suite.h"
#include "storage/retrying_store.h"
#include "support/fake_clock.h"
#include "support/memory_store.h"

namespace guestagent {
namespace {

StoreUnderTest plain() {
  return {nullptr, std::make_unique<test::MemoryStore>()};
}

StoreUnderTest with_retries() {
  auto clock = std::make_shared<FakeClock>();
  auto store = make_retrying_store(std::make_unique<test::MemoryStore>(), {}, *clock);
  return {clock, std::move(store)};
}

INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreContract,
                         testing::Values(StoreKind{"plain", plain}, StoreKind{"retrying", with_retries}),
                         kind_name);

}  // namespace
}  // namespace guestagent
