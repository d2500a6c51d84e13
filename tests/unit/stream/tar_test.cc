#include "stream/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>

#include "base/error.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::code_of;
using test::random_bytes;

class Text : public ByteSource {
 public:
  explicit Text(std::string text, std::size_t step = 777) : text_(std::move(text)), step_(step) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = std::min({into.size(), text_.size() - at_, step_});
    std::memcpy(into.data(), text_.data() + at_, n);
    at_ += n;
    return n;
  }
  std::size_t left() const { return text_.size() - at_; }

 private:
  std::string text_;
  std::size_t step_, at_ = 0;
};

std::string all_of(ByteSource& source, std::size_t step = 1000) {
  std::string out;
  std::vector<std::byte> block(step);
  for (std::size_t n = 0; (n = source.read(block)) != 0;) out.append(reinterpret_cast<const char*>(block.data()), n);
  return out;
}

void unpack(std::string archive, const fs::path& dir, std::size_t step = 777) {
  Text text(std::move(archive), step);
  untar(
      text, dir, [](std::string_view) { return true; }, [] {});
  EXPECT_EQ(text.left(), 0U);
}

// Archives as somebody else would write them.
class Maker {
 public:
  explicit Maker(int (*format)(archive*) = archive_write_set_format_pax) : archive_(archive_write_new()) {
    format(archive_);
    archive_write_set_bytes_per_block(archive_, 0);
    archive_write_open(archive_, this, nullptr, take, nullptr);
  }
  ~Maker() { archive_write_free(archive_); }
  Maker(const Maker&) = delete;
  Maker& operator=(const Maker&) = delete;

  Maker& add(const std::string& name, const std::string& content, unsigned type = AE_IFREG,
             const std::function<void(archive_entry*)>& change = {}) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(content.size()));
    if (change) change(entry);
    EXPECT_GE(archive_write_header(archive_, entry), ARCHIVE_WARN) << name;
    if (!content.empty()) archive_write_data(archive_, content.data(), content.size());
    archive_entry_free(entry);
    return *this;
  }
  std::string text() {
    archive_write_close(archive_);
    return out_;
  }

 private:
  static la_ssize_t take(archive*, void* self, const void* data, std::size_t size) {
    static_cast<Maker*>(self)->out_.append(static_cast<const char*>(data), size);
    return static_cast<la_ssize_t>(size);
  }
  archive* archive_;
  std::string out_;
};

std::map<std::string, std::string> tree(const fs::path& dir) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    const std::string name = entry.path().lexically_relative(dir).string();
    if (entry.is_symlink()) {
      out[name] = "(link)";
    } else if (entry.is_directory()) {
      out[name] = "(directory)";
    } else {
      out[name] = read_file(entry.path(), std::size_t{64} << 20);
    }
  }
  return out;
}

class Tar : public testing::Test {
 protected:
  Tar() : top_(fs::temp_directory_path(), "tar-"), in_(top_.path() / "in"), out_(top_.path() / "sub" / "out") {
    fs::create_directories(in_);
    fs::create_directories(out_);
  }
  void write(const std::string& name, const std::string& content) {
    fs::create_directories((in_ / name).parent_path());
    std::ofstream(in_ / name, std::ios::binary) << content;
  }
  // What unpacking is refused with, "" for nothing at all; nothing outside of the directory may have been made.
  std::string refused(std::string archive) {
    const auto before = tree(top_.path() / "in");
    std::string code;
    try {
      unpack(std::move(archive), out_);
    } catch (const Error& e) {
      code = std::string(code_row(e.code()).wire);
    }
    EXPECT_EQ(tree(top_.path() / "in"), before);
    for (const auto& [name, content] : tree(top_.path())) {
      EXPECT_TRUE(name == "in" || name == "sub" || name.starts_with("sub/out") || name.starts_with("in/")) << name;
      EXPECT_NE(content, "(link)") << name;
    }
    for (const auto& entry : fs::directory_iterator(out_)) remove_tree(entry.path());
    return code;
  }

  TempDir top_;
  const fs::path in_, out_;
};

TEST_F(Tar, WhatGoesInComesOut) {
  write("ibdata1", random_bytes(3 * (1 << 20) + 17, 1));
  write("empty", "");
  write("one", "x");
  write("block", random_bytes(512, 2));
  write("zeros", std::string(100000, '\0'));
  write("#innodb_redo/#ib_redo0", random_bytes(70000, 3));
  write("lab/@0437@0438.ibd", "name as the server writes it");
  write("lab/größe.ibd", "a name of bytes");
  write("deep/" + std::string(200, 'd') + "/" + std::string(200, 'f'), "long names");
  fs::create_directories(in_ / "empty_schema");
  for (const std::size_t step : {std::size_t{100}, std::size_t{4096}, std::size_t{3} << 20}) {
    const auto source = tar_directory(in_);
    unpack(all_of(*source, step), out_, step);
    EXPECT_EQ(tree(out_), tree(in_)) << step;
    for (const auto& entry : fs::directory_iterator(out_)) remove_tree(entry.path());
  }
}

TEST_F(Tar, EmptyDirectoryIsAnArchive) {
  unpack(all_of(*tar_directory(in_)), out_);
  EXPECT_TRUE(fs::is_empty(out_));
}

TEST_F(Tar, StockTarReadsIt) {
  write("lab/t.ibd", random_bytes(100000, 4));
  write("deep/" + std::string(150, 'd') + "/" + std::string(150, 'f'), "long");
  const fs::path file = top_.path() / "a.tar";
  std::ofstream(file, std::ios::binary) << all_of(*tar_directory(in_));
  ASSERT_EQ(std::system(("tar -C '" + out_.string() + "' -xf '" + file.string() + "'").c_str()), 0);
  EXPECT_EQ(tree(out_), tree(in_));
}

TEST_F(Tar, ReadsStockTars) {
  write("lab/t.ibd", random_bytes(100000, 5));
  write(std::string(90, 'd') + "/" + std::string(90, 'f'), "long");
  for (const char* format : {"gnu", "pax", "ustar"}) {
    const fs::path file = top_.path() / "a.tar";
    ASSERT_EQ(
        std::system(("tar --format=" + std::string(format) + " -C '" + in_.string() + "' -cf '" + file.string() + "' .")
                        .c_str()),
        0);
    unpack(read_file(file, std::size_t{8} << 20), out_);
    EXPECT_EQ(tree(out_), tree(in_)) << format;
    for (const auto& entry : fs::directory_iterator(out_)) remove_tree(entry.path());
  }
}

TEST_F(Tar, NeverPacksALink) {
  write("file", "x");
  fs::create_symlink("/etc/passwd", in_ / "link");
  EXPECT_EQ(code_of([&] { all_of(*tar_directory(in_)); }), "FAILED_PRECONDITION");
}

TEST_F(Tar, NoticesAFileThatShrinks) {
  write("file", random_bytes(std::size_t{5} << 20, 6));
  const auto source = tar_directory(in_);
  std::vector<std::byte> block(4096);
  source->read(block);
  fs::resize_file(in_ / "file", 1000);
  EXPECT_EQ(code_of([&] { all_of(*source); }), "DATA_LOSS");
}

TEST_F(Tar, LeavesOutWhatIsNotWanted) {
  write("auto.cnf", "uuid");
  write("lab/auto.cnf", "not the server's");
  Text text(all_of(*tar_directory(in_)));
  untar(
      text, out_, [](std::string_view path) { return path != "auto.cnf"; }, [] {});
  EXPECT_FALSE(fs::exists(out_ / "auto.cnf"));
  EXPECT_TRUE(fs::exists(out_ / "lab/auto.cnf"));
}

TEST_F(Tar, FilesAreForTheirOwnerAlone) {
  write("lab/t.ibd", "x");
  ::chmod((in_ / "lab/t.ibd").c_str(), 06777);
  unpack(all_of(*tar_directory(in_)), out_);
  struct stat info {};
  ASSERT_EQ(::stat((out_ / "lab/t.ibd").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600U);
  ASSERT_EQ(::stat((out_ / "lab").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700U);
}

TEST_F(Tar, RefusesPathsThatLeadOut) {
  for (const std::string name : {"../evil", "a/../../evil", "/tmp/guestagent-evil", "//evil", "..", "a/.."}) {
    EXPECT_EQ(refused(Maker().add("good", "x").add(name, "evil").text()), "DATA_LOSS") << name;
    EXPECT_EQ(refused(Maker().add(name, "", AE_IFDIR).text()), "DATA_LOSS") << name;
  }
  EXPECT_FALSE(fs::exists("/tmp/guestagent-evil"));
}

TEST_F(Tar, RefusesLinksAndDevices) {
  const auto symlink = [](archive_entry* e) { archive_entry_set_symlink(e, "/etc"); };
  const auto hardlink = [](archive_entry* e) { archive_entry_set_hardlink(e, "../../in/file"); };
  write("file", "of somebody else");
  EXPECT_EQ(refused(Maker().add("link", "", AE_IFLNK, symlink).add("link/passwd", "evil").text()), "DATA_LOSS");
  EXPECT_EQ(refused(Maker().add("a", "x").add("b", "", AE_IFREG, hardlink).text()), "DATA_LOSS");
  for (const unsigned type : {unsigned{AE_IFCHR}, unsigned{AE_IFBLK}, unsigned{AE_IFIFO}}) {
    EXPECT_EQ(refused(Maker().add("device", "", type).text()), "DATA_LOSS") << type;
  }
}

TEST_F(Tar, RefusesWhatContradictsItself) {
  EXPECT_EQ(refused(Maker().add("a", "first").add("a", "second").text()), "DATA_LOSS");
  EXPECT_EQ(refused(Maker().add("a", "first").add("./a", "second").text()), "DATA_LOSS");
  EXPECT_EQ(refused(Maker().add("a", "file").add("a/b", "below a file").text()), "DATA_LOSS");
  EXPECT_EQ(refused(Maker().add("a", "file").add("a", "", AE_IFDIR).text()), "DATA_LOSS");
  EXPECT_EQ(refused(Maker().add(".", "in the place of the directory").text()), "DATA_LOSS");
}

TEST_F(Tar, EachEntryIsLookedAtBeforeItIsMade) {
  std::vector<std::string> seen;
  const auto look = [&](std::string_view path, unsigned mode) {
    seen.push_back(std::string(path) + (S_ISDIR(mode) ? "/" : "") + " " + std::to_string(mode & 07777));
    if (path == "bad") throw Error(Code::data_loss, "bad");
  };
  const auto setuid = [](archive_entry* e) { archive_entry_set_perm(e, 04755); };
  Text text(Maker().add("d", "", AE_IFDIR).add("d/f", "x", AE_IFREG, setuid).add("bad", "x").add("after", "x").text());
  EXPECT_EQ(code_of([&] {
              untar(
                  text, out_, [](std::string_view) { return true; }, [] {}, look);
            }),
            "DATA_LOSS");
  EXPECT_EQ(seen, (std::vector<std::string>{"d/ 420", "d/f 2541", "bad 420"}));
  EXPECT_FALSE(fs::exists(out_ / "bad"));
}

TEST_F(Tar, RefusesPathsLongerThanAny) {
  std::string deep = "d";
  for (int i = 0; i < 3000; ++i) deep += "/d";
  Text text(Maker().add(deep, "x").text());
  const Error error = test::error_of([&] {
    untar(
        text, out_, [](std::string_view) { return true; }, [] {});
  });
  EXPECT_EQ(error.code(), Code::data_loss);
  EXPECT_LT(std::string(error.what()).size(), 400U);
  EXPECT_TRUE(fs::is_empty(out_));
}

TEST_F(Tar, RefusesHoles) {
  const auto sparse = [](archive_entry* e) {
    archive_entry_set_size(e, la_int64_t{1} << 40);
    archive_entry_sparse_add_entry(e, (la_int64_t{1} << 40) - 4, 4);
  };
  EXPECT_EQ(refused(Maker().add("huge", "tail", AE_IFREG, sparse).text()), "DATA_LOSS");
}

TEST_F(Tar, RefusesWhatIsCutAnywhere) {
  write("lab/t1.ibd", random_bytes(3000, 7));
  write("lab/t2.ibd", random_bytes(3000, 8));
  write("z", "last");
  const std::string whole = all_of(*tar_directory(in_));
  unpack(whole, out_);
  for (const auto& entry : fs::directory_iterator(out_)) remove_tree(entry.path());
  for (std::size_t size = 0; size < whole.size(); size += 97)
    EXPECT_EQ(refused(whole.substr(0, size)), "DATA_LOSS") << size;
  for (std::size_t size = 0; size < whole.size(); size += 512)
    EXPECT_EQ(refused(whole.substr(0, size)), "DATA_LOSS") << size;
}

TEST_F(Tar, RefusesWhatFollowsTheEnd) {
  const std::string whole = Maker().add("a", "x").text();
  EXPECT_EQ(refused(whole + whole), "DATA_LOSS");
  EXPECT_EQ(refused(whole + std::string(511, '\0') + "x"), "DATA_LOSS");
  EXPECT_NO_THROW(unpack(whole + std::string(10240, '\0'), out_));  // stock tar pads
}

TEST_F(Tar, RefusesOtherThings) {
  EXPECT_EQ(refused(""), "DATA_LOSS");
  EXPECT_EQ(refused(random_bytes(100000, 9)), "DATA_LOSS");
  EXPECT_EQ(refused("XBSTCK01" + random_bytes(5000, 10)), "DATA_LOSS");
  EXPECT_EQ(refused(Maker(archive_write_set_format_cpio).add("a", "x").text()), "DATA_LOSS");
  EXPECT_EQ(refused(Maker(archive_write_set_format_zip).add("a", "x").text()), "DATA_LOSS");
}

TEST_F(Tar, FlippedBytesAreAnErrorOrDataNeverMore) {
  write("lab/t1.ibd", random_bytes(2000, 11));
  const std::string whole = all_of(*tar_directory(in_));
  for (std::size_t at = 0; at < whole.size(); at += 3) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 0x24);
    const std::string code = refused(std::move(bad));
    EXPECT_TRUE(code.empty() || code == "DATA_LOSS") << at << ' ' << code;
  }
}

TEST_F(Tar, ASourcesErrorComesThrough) {
  class Broken : public Text {
   public:
    using Text::Text;
    std::size_t read(std::span<std::byte> into) override {
      if (left() < 2000) throw Error(Code::unavailable, "the store went away");
      return Text::read(into);
    }
  };
  write("a", random_bytes(5000, 12));
  Broken broken(all_of(*tar_directory(in_)));
  EXPECT_EQ(code_of([&] {
              untar(
                  broken, out_, [](std::string_view) { return true; }, [] {});
            }),
            "UNAVAILABLE");
  Text text(all_of(*tar_directory(in_)));
  EXPECT_EQ(code_of([&] {
              untar(
                  text, out_, [](std::string_view) { return true; }, [] { throw Error(Code::cancelled, "cancelled"); });
            }),
            "CANCELLED");
}

}  // namespace
}  // namespace guestagent
