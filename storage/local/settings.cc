#include "storage/local/settings.h"

namespace guestagent {

void read_local_settings(YamlReader& in, OwnSettings& out, bool) {
  in.path("path", out.of<LocalStoreSettings>().path);
}

StoreNeeds describe_local_settings(const OwnSettings& own) {
  StoreNeeds out;
  out.place = {"storage.local.path", own.get<LocalStoreSettings>().path};
  return out;
}

}  // namespace guestagent
