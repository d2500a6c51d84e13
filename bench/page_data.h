// Bytes like those of a database's files, for measuring: `zstd -1` makes them 2.4 times smaller, as it does with real
// copies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace guestagent::bench {

// Pages of 16 KiB with a header, rows of numbers, digits and words of a common vocabulary, and a free end. The same
// from the same seed.
class PageData {
 public:
  static constexpr std::size_t kPage = 16384;

  explicit PageData(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < 4000; ++i) {
      std::string word;
      for (std::uint64_t n = 3 + random_() % 8; n > 0; --n) word += static_cast<char>('a' + random_() % 26);
      words_.push_back(word + ' ');
    }
  }

  std::string next() {
    std::string page;
    page.reserve(kPage);
    number(page, ++pages_, 4);
    number(page, random_(), 8);
    page.append("infimum\0supremum", 16);
    while (page.size() < kPage - 2000) row(page);
    page.resize(kPage, '\0');
    return page;
  }

 private:
  static void number(std::string& page, std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) page += static_cast<char>(value >> (8 * i));
  }

  void row(std::string& page) {
    number(page, ++rows_, 8);
    number(page, rows_ / 100, 6);
    number(page, random_() % 1000000, 4);
    page.append(12, '\0');
    for (int i = 0; i < 2; ++i) {
      std::string digits = std::to_string(random_() % 100000000000);
      page.append(11 - digits.size(), '0').append(digits) += '-';
    }
    for (std::uint64_t n = 6 + random_() % 12; n > 0; --n) {
      // Some words are much more common than others.
      const std::uint64_t a = random_() % words_.size();
      const std::uint64_t b = random_() % words_.size();
      page += words_[static_cast<std::size_t>(a * b / words_.size())];
    }
  }

  std::mt19937_64 random_;
  std::vector<std::string> words_;
  std::uint64_t pages_ = 0;
  std::uint64_t rows_ = 0;
};

}  // namespace guestagent::bench
