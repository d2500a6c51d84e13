// Any JSON is metadata that is safe to pass on and survives a round trip, or an Error that says what is wrong with it.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/host_name.h"
#include "strategies/metadata.h"
#include "strategies/mysql/server/position.h"

namespace {

using namespace guestagent;

void must_be_a_line(std::string_view text) {
  if (text.size() > 4096 ||
      std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; })) {
    std::abort();
  }
}

SnapshotMetadata read_text(std::string_view text) {
  const JsonDocument document = parse_json(text, "fuzz");
  SnapshotMetadata read = read_metadata(document, "snapshot");
  const JsonReader in(document, "snapshot");
  read.data_position = mysql::own(mysql::read_position(in.object(kDataPosition)));
  read.lease_position = mysql::own(mysql::read_position(in.object(kLeasePosition)));
  return read;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const SnapshotMetadata read = read_text({reinterpret_cast<const char*>(data), size});
    if (!HostName::parse(read.master_host)) std::abort();
    for (const std::string* text :
         {&read.datastore, &read.datastore_version, &read.snapshot_href, &read.replication_user, &read.id,
          &read.created_at, &read.tool, &read.format, &read.compression, &read.digest}) {
      must_be_a_line(*text);
    }
    must_be_a_line(read.replication_password.reveal());
    for (const OwnJson* position : {&read.data_position, &read.lease_position})
      must_be_a_line(mysql::position_of(*position).file.value_or(""));
    const std::string written = write_metadata(read);
    if (write_metadata(read_text(written)) != written) std::abort();
  } catch (const Error& error) {
    if (error.code() != Code::invalid_argument && error.code() != Code::failed_precondition) std::abort();
  }
  return 0;
}
