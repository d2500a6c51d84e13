// Whether each table of a copy has its data: a copy tool that was overtaken by a renaming says "completed OK!" all the
// same, and leaves the definition of a table without the files of its engine.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "strategies/mysql/copy/xbstream_files.h"

namespace guestagent::mysql {

// Told of all files of one copy, in any order, it knows which tables lack files. What is not knowable is not asked:
// InnoDB's tables may be in a shared tablespace.
class TableFiles : public XbstreamFiles::Watcher {
 public:
  // Of definitions (.frm) and lists of partitions (.par) the first bytes, in order, before end(). kHead of them are
  // enough.
  void data(std::string_view path, std::uint64_t offset, std::string_view bytes) override;
  // A description (.sdi) of MySQL 8.0 and later, whole: its tables of other engines than InnoDB have one.
  void describe(std::string_view path, std::string_view text);
  // The file is in the copy, whole.
  void end(std::string_view path) override;
  void renamed(std::string_view from, std::string_view to) override;
  void removed(std::string_view path) override;
  static constexpr std::size_t kHead = 64;
  static bool wants_data(std::string_view path);

  // "d.r1 (Aria: r1.MAI, r1.MAD)" for each table that lacks files; the first hundred at most.
  std::vector<std::string> lacking() const;

 private:
  struct Table {
    int engine = -1;  // by the definition; -1: no definition yet
    bool partitioned = false;
    std::uint32_t parts = 0;                   // by the list; 0: not known
    std::set<std::string, std::less<>> files;  // those of its engine, by path
  };
  void define(const std::string& stem, std::string_view head);

  std::map<std::string, Table, std::less<>> tables_;       // of engines with files of their own, by "db/table"
  std::map<std::string, std::string, std::less<>> heads_;  // of files that are not whole yet
};

}  // namespace guestagent::mysql
