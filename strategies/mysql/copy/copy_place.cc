#include "strategies/mysql/copy/copy_place.h"

#include <algorithm>

#include "base/error.h"
#include "strategies/mysql/server/gtid.h"

namespace guestagent::mysql {

void require_place(const Position& position, const Position& lease, const std::vector<BinlogFile>& logs,
                   GtidKind kind) {
  if (position.restored) return;
  const std::string file = position.file.value_or("");
  const std::uint64_t offset = position.offset.value_or(0);
  const auto refuse = [&](const std::string& why) {
    throw Error(Code::failed_precondition,
                "checking the copy's position: " + file + ":" + std::to_string(offset) + ": " + why,
                "the tool must copy the server of mysql.socket: remove host, port and socket from the groups that it "
                "reads in the server's "
                "option files; and let nobody remove binary logs during a snapshot");
  };
  const auto find = [&](const std::string& name) {
    return std::find_if(logs.begin(), logs.end(), [&](const BinlogFile& log) { return log.name == name; });
  };
  const auto at = find(file);
  if (at == logs.end()) refuse("the server has no binary log of that name");
  if (offset > at->bytes) refuse("the server's binary log ends at " + std::to_string(at->bytes));
  const auto begin = find(lease.file.value_or(""));
  if (begin != logs.end() && (at < begin || (at == begin && offset < lease.offset.value_or(0)))) {
    refuse("that lies before " + *lease.file + ":" + std::to_string(lease.offset.value_or(0)) +
           ", where the server was before the copy");
  }
  if (!position.gtid || !lease.gtid) return;
  if (!GtidSet::parse(kind, *position.gtid).contains(GtidSet::parse(kind, *lease.gtid))) {
    refuse("its GTIDs lack some of " + *lease.gtid + ", which the server had before the copy");
  }
}

}  // namespace guestagent::mysql
