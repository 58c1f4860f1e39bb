#!/bin/sh
# Debian's chromium opens the report in the tests, and a Korean font writes its Korean figures.
# Where they are missing and can be installed they are; else the tests that need them are skipped.
need=""
command -v chromium >/dev/null || need="chromium"
fc-list :lang=ko 2>/dev/null | grep -q . || need="$need fonts-nanum"
[ -z "$need" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing $need for the tests"
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends $need) >/dev/null 2>&1 && exit 0
fi
echo "NOTE: $need could not be installed here, so the tests that need it are skipped"
