#include "storage/stores.h"

#include <array>

#include "base/text.h"
#include "storage/local/local_store.h"
#include "storage/local/settings.h"
#include "storage/retrying_store.h"
#include "storage/s3/s3_store.h"
#include "storage/swift/swift_store.h"

namespace guestagent {
namespace {

std::unique_ptr<ObjectStore> make_local(const StorageSettings& s, Clock&) {
  return make_local_store(s.own.get<LocalStoreSettings>().path, s.container, s.prefix);
}
std::unique_ptr<ObjectStore> make_swift(const StorageSettings& s, Clock& clock) {
  return make_swift_store(s.own.get<SwiftSettings>(), s.timeouts, s.container, s.prefix, clock);
}
std::unique_ptr<ObjectStore> make_s3(const StorageSettings& s, Clock& clock) {
  return make_s3_store(s.own.get<S3Settings>(), s.timeouts, s.container, s.prefix, clock);
}

struct StoreRow {
  StoreSection section;
  std::unique_ptr<ObjectStore> (*make)(const StorageSettings&, Clock&);
};
// In the order of the shipped file.
constexpr std::array kStores = {
    StoreRow{{"local", read_local_settings, describe_local_settings}, make_local},
    StoreRow{{"swift", read_swift_settings, describe_swift_settings}, make_swift},
    StoreRow{{"s3", read_s3_settings, describe_s3_settings}, make_s3},
};
constexpr auto kSections = [] {
  std::array<StoreSection, kStores.size()> out = {};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = kStores[i].section;
  return out;
}();

const StoreRow& find_store(const std::string& name) {
  std::vector<std::string_view> names;
  for (const StoreRow& row : kStores) {
    if (row.section.name == name) return row;
    names.push_back(row.section.name);
  }
  throw Error(Code::invalid_argument, "storage.store: \"" + name + "\": no such store", "use one of " + join(names));
}

}  // namespace

StoreSections store_sections() {
  return kSections;
}

std::unique_ptr<ObjectStore> make_store(const StorageSettings& settings, Clock& clock) {
  return make_retrying_store(find_store(settings.store).make(settings, clock), settings.retry, clock);
}

StoreNeeds describe_store(const StorageSettings& settings) {
  return find_store(settings.store).section.describe(settings.own);
}

}  // namespace guestagent
