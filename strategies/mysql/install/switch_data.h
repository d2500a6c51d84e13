// The exchange of a server's data for other data, one directory entry at a time, under the journal.
//
// What lies outside of the data directory (redo, undo, aria, binary and relay logs) is exchanged with it. Old data only
// ever moves to a place of its own until discard_previous(); put_back() restores it from any state, also in another
// process after a crash.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/job_context.h"
#include "config/settings.h"
#include "strategies/mysql/host/host_places.h"

namespace guestagent::mysql {

// Where a server keeps its data. All absolute; an empty directory means the data directory.
struct DataLayout {
  fs::path data_dir;
  fs::path innodb_home, redo_dir, undo_dir, aria_dir;
  fs::path log_bin, relay_log;                  // base names; empty: none
  std::vector<std::string> system_tablespaces;  // names of the files of innodb_data_file_path
  fs::path doublewrite_dir;
  // Files of the server's that belong to the data and may lie anywhere: indexes of logs, what replication writes down.
  std::vector<fs::path> files;
  HostPlaces host;
};

// The names of the files in innodb_data_file_path ("ibdata1:12M;ibdata2:1G:autoextend"). failed_precondition for one
// with a directory: such a file would not be exchanged with the rest.
std::vector<std::string> tablespace_names(const std::string& data_file_path);

// REQUIRES of every call: the server is stopped and cannot be started.
class DataSwitch {
 public:
  // Plans the exchange of what is in `layout` for what is in `staging` and records the plan. Nothing is moved yet.
  // Throws failed_precondition for what cannot be exchanged (a mount point inside of a directory to move).
  DataSwitch(const DataLayout& layout, const fs::path& staging, Journal& journal);
  // The exchange that an earlier run recorded; nullopt when it came to none.
  static std::optional<DataSwitch> recorded(Journal& journal);

  // Old data away, new data in, durable. The new system tablespace comes last of all: without it no server starts on
  // half the data.
  void exchange();

  // The old data is back in its place and the new is gone. Idempotent, from any state before discard_previous.
  void put_back();

  // Removes the old data. There is no way back.
  void discard_previous();
  // What is left of the old data once it is kept for good: its place.
  fs::path previous() const;

 private:
  struct Area {
    fs::path live, previous;
    std::vector<std::string> keep;      // entries that are not the server's data; of areas that are taken whole
    std::vector<std::string> prefixes;  // of entries that are ("=name": that entry alone); empty: all but `keep`
    struct Inner {                      // a directory inside `live` that new data needs
      fs::path path;
      unsigned mode = 0, uid = 0, gid = 0;
    };
    std::vector<Inner> inner;
    bool has(const std::string& name) const;
  };

  DataSwitch(Journal& journal) : journal_(&journal) {}
  void add_area(const fs::path& live, std::vector<std::string> prefixes, const fs::path& data_dir);
  void add_file(const fs::path& file, const fs::path& data_dir);
  void add_inner(const fs::path& dir);
  std::string text() const;
  const Area& area_for(const std::string& name) const;
  std::vector<fs::path> entries(const Area& area, const fs::path& dir) const;
  void move_out();
  void carry_over();
  void move_in();
  void clear();
  void move_back();

  Journal* journal_;
  fs::path staging_, root_;
  std::vector<Area> areas_;           // the data directory first
  std::vector<std::string> carried_;  // entries of the data directory that the new data gets copies of
};

}  // namespace guestagent::mysql
