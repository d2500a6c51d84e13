#include "strategies/mysql/copy/table_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace guestagent::mysql {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kMyisam = 9, kMerge = 10, kInnodb = 12, kMemory = 6, kArchive = 16, kCsv = 17, kPartitionedTable = 20,
               kS3 = 41, kAria = 42;

// A definition as the servers write it: its engine at offset 3, that of its partitions at 61.
std::string definition(char engine, char part_engine = 0) {
  std::string out(100, '\0');
  out[0] = '\xfe';
  out[1] = '\x01';
  out[2] = '\x0a';
  out[3] = engine;
  out[61] = part_engine;
  return out;
}

std::string partitions(char count) {
  return std::string("\x08\0\0\0\x69\x1a\x5a\x42", 8) + count + std::string(20, '\0');
}

struct Given {
  std::string name, content;
};

std::vector<std::string> lacking(const std::vector<Given>& files) {
  TableFiles tables;
  for (const Given& file : files) {
    // In pieces, as a stream comes.
    for (std::size_t at = 0; at < file.content.size(); at += 7)
      tables.data(file.name, at, std::string_view(file.content).substr(at, 7));
    tables.end(file.name);
  }
  return tables.lacking();
}

TEST(TableFilesTest, WholeTablesLackNothing) {
  const std::vector<std::vector<Given>> cases = {
      {{"d/t.frm", definition(kAria)}, {"d/t.MAI", "x"}, {"d/t.MAD", "x"}},
      {{"d/t.MAD", ""}, {"d/t.MAI", "x"}, {"d/t.frm", definition(kAria)}},
      {{"d/t.frm", definition(kMyisam)}, {"d/t.MYI", "x"}, {"d/t.MYD", ""}},
      {{"d/t.frm", definition(kMerge)}, {"d/t.MRG", "x"}},
      {{"d/t.frm", definition(kCsv)}, {"d/t.CSV", ""}, {"d/t.CSM", "x"}},
      {{"d/t.frm", definition(kArchive)}, {"d/t.ARZ", "x"}},
      // In a shared tablespace, discarded, made while the copy ran: none is known to lack anything.
      {{"d/t.frm", definition(kInnodb)}},
      {{"d/t.frm", definition(kInnodb)}, {"d/t.new", "x"}},
      {{"d/t.frm", definition(kInnodb)}, {"d/t.ibd", "x"}},
      {{"d/t.frm", definition(kMemory)}},
      {{"d/t.frm", definition(kS3)}},
      {{"d/t.frm", definition(45)}},
      {{"d/v.frm", "TYPE=VIEW\nquery=select 1 AS `1`\nmd5=027c479bb8633bbe6c0eb559ba"}},
      {{"d/e.frm", ""}},
      {{"d/c.frm", "\xfe"}},
      {{"d/#sql-1a2b_3.frm", definition(kAria)}},
      {{"d/#sql-ib12.frm", definition(kMyisam)}},
      {{"t.frm", definition(kAria)}},
      {{"d/db.opt", "x"}, {"d/tr.TRG", "TYPE=TRIGGERS"}},
      {{"d/gone.MAI", "x"}, {"d/gone.MAD", "x"}},
      {{"d/t.frm", definition(kPartitionedTable, kAria)},
       {"d/t.par", partitions(2)},
       {"d/t#P#p0.MAI", "x"},
       {"d/t#P#p0.MAD", "x"},
       {"d/t#P#p1.MAI", "x"},
       {"d/t#P#p1.MAD", "x"}},
      {{"d/t.frm", definition(kPartitionedTable, kMyisam)},
       {"d/t.par", partitions(1)},
       {"d/t#p#a#sp#b.MYI", "x"},
       {"d/t#p#a#sp#b.MYD", "x"}},
      {{"d/t.frm", definition(kPartitionedTable, kInnodb)}, {"d/t.par", partitions(3)}},
      {{"d/t.frm", definition(kPartitionedTable, kAria)}, {"d/t#P#p0.MAI", "x"}, {"d/t#P#p0.MAD", "x"}},
  };
  for (const auto& files : cases)
    EXPECT_THAT(lacking(files), IsEmpty()) << files.front().name << ' ' << &files - cases.data();
}

TEST(TableFilesTest, WhatIsLostIsNamed) {
  EXPECT_THAT(lacking({{"d/r1.frm", definition(kAria)}}), ElementsAre("d.r1 (Aria: r1.MAI, r1.MAD)"));
  EXPECT_THAT(lacking({{"d/r1.frm", definition(kAria)}, {"d/r1.MAI", "x"}}), ElementsAre("d.r1 (Aria: r1.MAD)"));
  EXPECT_THAT(lacking({{"d/t.frm", definition(kMyisam)}, {"e/t.MYI", "x"}, {"e/t.MYD", "x"}}),
              ElementsAre("d.t (MyISAM: t.MYI, t.MYD)"));
  EXPECT_THAT(lacking({{"d/t.frm", definition(kCsv)}}), ElementsAre("d.t (CSV: t.CSV)"));
  EXPECT_THAT(lacking({{"d/t.frm", definition(kMerge)}}), ElementsAre("d.t (MERGE: t.MRG)"));
  EXPECT_THAT(lacking({{"d/t.frm", definition(kArchive)}}), ElementsAre("d.t (ARCHIVE: t.ARZ)"));
  EXPECT_THAT(
      lacking({{"d/a.frm", definition(kAria)}, {"d/b.frm", definition(kInnodb)}, {"d/c.frm", definition(kMyisam)}}),
      ElementsAre("d.a (Aria: a.MAI, a.MAD)", "d.c (MyISAM: c.MYI, c.MYD)"));
  EXPECT_THAT(lacking({{"d/t.frm", definition(kPartitionedTable, kAria)},
                       {"d/t.par", partitions(2)},
                       {"d/t#P#p0.MAI", "x"},
                       {"d/t#P#p0.MAD", "x"}}),
              ElementsAre("d.t (Aria: t#P#*.MAI, t#P#*.MAD)"));
  EXPECT_THAT(lacking({{"d/t.frm", definition(kPartitionedTable, kAria)}}),
              ElementsAre("d.t (Aria: t#P#*.MAI, t#P#*.MAD)"));
}

TEST(TableFilesTest, AFileThatHasNoEndIsNotThere) {
  TableFiles tables;
  tables.data("d/t.frm", 0, definition(kAria));
  tables.end("d/t.frm");
  tables.end("d/t.MAI");
  tables.data("d/t.MAD", 0, "begun");
  EXPECT_THAT(tables.lacking(), ElementsAre("d.t (Aria: t.MAD)"));
  tables.end("d/t.MAD");
  EXPECT_THAT(tables.lacking(), IsEmpty());
}

TEST(TableFilesTest, FilesThatMoveInTheStreamAreFollowed) {
  TableFiles tables;
  const auto whole = [&](const std::string& name, const std::string& content = "x") {
    tables.data(name, 0, content);
    tables.end(name);
  };
  for (const char* name : {"d/t1.MAI", "d/t1.MAD"}) whole(name);
  whole("d/t1.frm", definition(kAria));
  tables.renamed("d/t1.MAD", "d/r1.MAD");
  EXPECT_THAT(tables.lacking(), ElementsAre("d.t1 (Aria: t1.MAD)"));
  tables.renamed("d/t1.MAI", "d/r1.MAI");
  tables.renamed("d/t1.frm", "d/r1.frm");
  EXPECT_THAT(tables.lacking(), IsEmpty());
  tables.removed("d/r1.MAI");
  EXPECT_THAT(tables.lacking(), ElementsAre("d.r1 (Aria: r1.MAI)"));
  // A definition that comes again counts as it came last, and the same file twice is one.
  whole("d/r1.frm", definition(kInnodb));
  EXPECT_THAT(tables.lacking(), IsEmpty());
  whole("d/p.frm", definition(kPartitionedTable, kAria));
  whole("d/p.par", partitions(2));
  for (int twice = 0; twice < 2; ++twice) {
    whole("d/p#P#a.MAI");
    whole("d/p#P#a.MAD");
  }
  EXPECT_THAT(tables.lacking(), ElementsAre("d.p (Aria: p#P#*.MAI, p#P#*.MAD)"));
  for (const char* name : {"d/p.frm", "d/p.par", "d/p#P#a.MAI", "d/p#P#a.MAD"}) tables.removed(name);
  EXPECT_THAT(tables.lacking(), IsEmpty());
  // What it takes the place of is gone.
  whole("d/a.frm", definition(kAria));
  whole("d/b.frm", definition(kInnodb));
  tables.renamed("d/b.frm", "d/a.frm");
  EXPECT_THAT(tables.lacking(), IsEmpty());
}

TEST(TableFilesTest, DescriptionsOfNewerServersTellTheEngine) {
  TableFiles tables;
  tables.describe("d/t_366.sdi", R"({"dd_object_type":"Table","dd_object":{"name":"t","engine":"MyISAM"}})");
  EXPECT_THAT(tables.lacking(), ElementsAre("d.t (MyISAM: t.MYI, t.MYD)"));
  tables.end("d/t.MYD");
  tables.end("d/t.MYI");
  tables.describe("d/u_367.sdi", R"({"dd_object":{"engine":"BLACKHOLE"}})");
  tables.describe("d/odd.sdi", R"({"dd_object":{"engine":"MyISAM"}})");
  EXPECT_THAT(tables.lacking(), IsEmpty());
}

TEST(TableFilesTest, NoMoreThanAHundredAreNamed) {
  TableFiles tables;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "d/t" + std::to_string(i) + ".frm";
    tables.data(name, 0, definition(kAria));
    tables.end(name);
  }
  EXPECT_EQ(tables.lacking().size(), 100U);
}

}  // namespace
}  // namespace guestagent::mysql
