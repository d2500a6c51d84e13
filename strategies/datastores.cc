#include "strategies/datastores.h"

#include <array>

#include "base/error.h"
#include "strategies/mysql/kind.h"

namespace guestagent {
namespace {

constexpr std::array kDatastores = {
    &mysql::kKind,
};

const DatastoreKind& kind_of(const Settings& settings) {
  std::string known;
  for (const DatastoreKind* kind : kDatastores) {
    if (kind->name == settings.datastore) return *kind;
    known += (known.empty() ? "" : ", ") + std::string(kind->name);
  }
  throw Error(Code::invalid_argument, "datastore: " + settings.datastore + ": not known", "one of: " + known);
}

template <typename T>
std::vector<T> of_all(std::vector<T> (*DatastoreKind::*part)()) {
  std::vector<T> out;
  for (const DatastoreKind* kind : kDatastores) {
    const std::vector<T> its = (kind->*part)();
    out.insert(out.end(), its.begin(), its.end());
  }
  return out;
}

}  // namespace

DatastoreParts make_datastore(const Settings& settings, Clock& clock) {
  return kind_of(settings).make(settings, clock);
}

HostNeeds host_needs(const Settings& settings) {
  return kind_of(settings).host_needs(settings);
}

std::vector<std::string_view> attach_members() {
  return of_all(&DatastoreKind::attach_members);
}

std::vector<const char*> foreign_environment() {
  return of_all(&DatastoreKind::foreign_environment);
}

std::vector<Check> check_config(const Settings& settings) {
  return kind_of(settings).check_config(settings);
}

std::string how_to_look(const Settings& settings, const fs::path& dir) {
  return kind_of(settings).how_to_look(settings, dir);
}

std::vector<Check> check_host(const Settings& settings) {
  return kind_of(settings).check_host(settings);
}

}  // namespace guestagent
