#include "net/metrics_text.h"

#include <gtest/gtest.h>

#include <limits>

namespace guestagent {
namespace {

TEST(MetricsText, FamiliesWithTheirSamples) {
  MetricsText out;
  out.family("a_total", "counter", "What it counts.");
  out.sample({}, 1);
  out.sample({{"method", "get"}, {"code", "OK"}}, 12.5);
  out.family("b", "gauge", "Nothing of it.");
  EXPECT_EQ(out.take(),
            "# HELP a_total What it counts.\n# TYPE a_total counter\na_total 1\na_total{method=\"get\",code=\"OK\"} "
            "12.5\n# HELP b Nothing of it.\n# TYPE b gauge\n");
}

TEST(MetricsText, WhatALabelHoldsStaysInIt) {
  MetricsText out;
  out.family("a", "gauge", "A.");
  out.take();
  out.sample({{"name", "one\"} 1\nb{c=\"\\"}}, 0);
  out.sample({{"name", "no\xff text"}}, 0);
  EXPECT_EQ(out.take(), "a{name=\"one\\\"} 1\\nb{c=\\\"\\\\\"} 0\na{name=\"no\xef\xbf\xbd text\"} 0\n");
}

TEST(MetricsText, NumbersAreExact) {
  MetricsText out;
  out.sample({}, 0.1);
  out.sample({}, 9007199254740991.0);
  out.sample({}, std::numeric_limits<double>::infinity());
  EXPECT_EQ(out.take(), " 0.1\n 9007199254740991\n inf\n");
}

}  // namespace
}  // namespace guestagent
