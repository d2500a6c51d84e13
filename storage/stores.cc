#include "storage/stores.h"

#include "storage/local/local_store.h"
#include "storage/retrying_store.h"
#include "storage/s3/s3_store.h"
#include "storage/swift/swift_store.h"

namespace guestagent {
namespace {

std::unique_ptr<ObjectStore> make_plain(const StorageSettings& settings, Clock& clock) {
  if (settings.store == "local") return make_local_store(settings.local.path, settings.container, settings.prefix);
  if (settings.store == "swift") {
    return make_swift_store(settings.swift, settings.timeouts, settings.container, settings.prefix, clock);
  }
  if (settings.store == "s3") {
    return make_s3_store(settings.s3, settings.timeouts, settings.container, settings.prefix, clock);
  }
  throw Error(Code::invalid_argument, "storage.store: \"" + settings.store + "\": no such store",
              "use local, swift or s3");
}

}  // namespace

std::unique_ptr<ObjectStore> make_store(const StorageSettings& settings, Clock& clock) {
  return make_retrying_store(make_plain(settings, clock), settings.retry, clock);
}

}  // namespace guestagent
