// What a backup tool left beside the data, and the GTID sets in it: any bytes are read, or refused by the Error that
// says which file is not right. The first byte says which reader.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "strategies/mysql/copy/tool_info.h"
#include "strategies/mysql/server/gtid.h"

namespace {

using namespace guestagent;
using namespace guestagent::mysql;

void check(bool fact) {
  if (!fact) std::abort();
}

void read_gtids(GtidKind kind, std::string_view text) {
  const GtidSet set = GtidSet::parse(kind, text);
  const GtidSet again = GtidSet::parse(kind, set.text());
  check(again.text() == set.text());
  check(set.contains(set) && set.missing(set) == 0 && set.minus(set).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0]) {
      case 'i':
        parse_tool_info(text, "xtrabackup_info");
        break;
      case 'b': {
        const Position position = parse_binlog_info(text, "xtrabackup_binlog_info");
        check(position.file && !position.file->empty());
        break;
      }
      case 'c':
        parse_checkpoints(text, "xtrabackup_checkpoints");
        break;
      case 'l':
        position_in_line(text);
        says_completed(text);
        break;
      case 'v':
        check(!parse_tool_version(text).empty());
        break;
      case 'g':
        read_gtids(GtidKind::mariadb, text);
        break;
      default:
        read_gtids(GtidKind::mysql, text);
    }
  } catch (const Error& e) {
    check(e.code() == Code::data_loss || e.code() == Code::invalid_argument || e.code() == Code::internal);
  }
  return 0;
}
