#include "strategies/mysql/copy/copy_names.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;

TEST(CopyNames, OfADataDirectoryAreTaken) {
  for (const std::string name : {"ibdata1",
                                 "ibdata2",
                                 "ib_logfile0",
                                 "ib_buffer_pool",
                                 "undo001",
                                 "undo_001",
                                 "mysql.ibd",
                                 "aria_log.00000001",
                                 "aria_log_control",
                                 "xtrabackup_info",
                                 "mariadb_backup_binlog_info",
                                 "xtrabackup_logfile",
                                 "backup-my.cnf",
                                 "xtrabackup_component_keyring_file.cnf",
                                 "binlog.000003",
                                 "db1.example.org-bin.000001",
                                 "host.so.corp-bin.000001",
                                 "relay.so.000012",
                                 "binlog.index",
                                 "server-cert.pem",
                                 "auto.cnf",
                                 "d",
                                 "d/t.frm",
                                 "d/t.ibd",
                                 "d/t.MYD",
                                 "d/t.MAI",
                                 "d/t.CSM",
                                 "d/t.new",
                                 "d/t.ren",
                                 "d/t#P#p0#SP#s1.ibd",
                                 "d/db.opt",
                                 "d/t_366.sdi",
                                 "d/tr.TRN",
                                 "@0437@0438/@00e9.ibd",
                                 "#mysql50#a-b/t.frm",
                                 "#innodb_redo/#ib_redo0",
                                 "#rocksdb/000012.sst",
                                 ".rocksdb/CURRENT",
                                 "größe/日本.ibd",
                                 "d/my@002eso.ibd",
                                 "so/so.frm",
                                 "cnf/my.ibd",
                                 "a/b/c/d",
                                 "lost+found"}) {
    EXPECT_EQ(copy_name_misfit(name), "") << name;
  }
}

TEST(CopyNames, OfAnythingElseAreRefused) {
  for (const std::string& name : std::vector<std::string>{"",
                                                          "/",
                                                          "/etc/passwd",
                                                          "..",
                                                          "../x",
                                                          "a/../x",
                                                          "a/..",
                                                          "d/../../x",
                                                          ".",
                                                          "./x",
                                                          "a/./b",
                                                          "a//b",
                                                          "a/",
                                                          "//x",
                                                          "evil.so",
                                                          "d/evil.so",
                                                          "evil.SO",
                                                          "evil.so.1",
                                                          "libx.so.1.2.3",
                                                          "plugin/evil.so",
                                                          "x.dll",
                                                          "x.dylib",
                                                          "x.sh",
                                                          ".my.cnf",
                                                          "my.cnf",
                                                          "d/my.cnf",
                                                          "d/backup-my.cnf",
                                                          "mysqld.my",
                                                          "component_keyring_file.cnf",
                                                          "d/xtrabackup_component_keyring_file.cnf",
                                                          ".bashrc",
                                                          "d/.hidden",
                                                          ".ssh/authorized_keys",
                                                          ".guestagent",
                                                          "a\nb",
                                                          "d/t\x01.ibd",
                                                          "tab\tname",
                                                          std::string("nul\0x", 5),
                                                          "x\x7f",
                                                          "no\xffutf8",
                                                          "a/b/c/d/e",
                                                          std::string(256, 'x'),
                                                          "d/" + std::string(300, 'y'),
                                                          [] {
                                                            std::string deep = "d";
                                                            for (int i = 0; i < 3000; ++i) deep += "/d";
                                                            return deep;
                                                          }()}) {
    EXPECT_NE(copy_name_misfit(name), "") << name;
    EXPECT_EQ(code_of([&] { check_copy_name(name); }), "DATA_LOSS") << name;
  }
  const Error error = test::error_of([] { check_copy_name(std::string(6000, 'z')); });
  EXPECT_LT(std::string(error.what()).size(), 400U);
}

TEST(CopyNames, ModesThatRunAsOthersAreRefused) {
  for (const unsigned good : {S_IFREG | 0644U, S_IFREG | 0777U, S_IFDIR | 0755U, S_IFDIR | 02750U, S_IFDIR | 01777U}) {
    EXPECT_NO_THROW(check_copy_mode("d/t.ibd", good)) << std::oct << good;
  }
  for (const unsigned bad :
       {S_IFREG | 04755U, S_IFREG | 02755U, S_IFREG | 01644U, S_IFREG | 06600U, S_IFDIR | 04755U}) {
    EXPECT_EQ(code_of([&] { check_copy_mode("d/t.ibd", bad); }), "DATA_LOSS") << std::oct << bad;
  }
}

}  // namespace
}  // namespace guestagent::mysql
