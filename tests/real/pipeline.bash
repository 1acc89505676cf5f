# SPDX-License-Identifier: GPL-3.0-or-later
# Runs in a pod, see tests/real/scripts. One pipeline for all the time, others one after the other.
set -u -o pipefail
exec 2>/dev/null # bash tells there which of its children the group's SIGTERM has ended
stop=
trap 'stop=1' TERM

fail() {
	echo "FAIL: $*"
	kill 0
	exit 1
}
short() (
	trap '' TERM
	seq 1 4000 | sed 's/^/x/' | sort -r | tr x y | cut -c1-4 | uniq -c | md5sum
)

dir=$(mktemp -d)
: >"$dir/go"
# doubles, then checks the number of each line
(
	trap '' TERM
	i=0
	while [[ -e $dir/go ]]; do seq $((i + 1)) $((i += 100000)); done | awk '{ print 2 * $1 }' | awk '
		$1 != 2 * NR { print "wrong " NR " " $1; exit 1 }
		NR % 100000 == 0 { print NR; fflush() }
		END { print "end", NR }' >"$dir/long"
) &
long=$!
want=$(short)
echo ready
rounds=0
while [[ -z $stop ]]; do
	# SIGTERM goes to the whole group, and a part may not ignore it yet
	got=$(short) || { [[ -n $stop ]] && break; fail "pipeline: status $?"; }
	[[ $got == "$want" ]] || fail "pipeline: expected $want, got $got"
	got=$(trap '' TERM; echo "$rounds" | cat | cat | cat)
	[[ $got == "$rounds" || -n $stop ]] || fail "cat: expected '$rounds', got '$got'"
	rounds=$((rounds + 1))
	kill -0 $long 2>/dev/null || fail "the long pipeline has ended: $(tail -n 1 "$dir/long")"
	grep -q wrong "$dir/long" && fail "the long pipeline: $(grep wrong "$dir/long")"
done
last=$(tail -n 1 "$dir/long")
((rounds > 5 && last > 0)) || fail "only $rounds rounds, $last lines"
for _ in {1..600}; do # it still moves on
	[[ $(tail -n 1 "$dir/long") == "$last" ]] || break
	sleep 0.1
done
[[ $(tail -n 1 "$dir/long") -gt $last ]] || fail "the long pipeline stands still at $last"
rm "$dir/go"
wait $long || fail "the long pipeline: expected status 0, got $?"
last=$(tail -n 1 "$dir/long")
[[ $last == end\ *00000 ]] || fail "the long pipeline: expected an end, got $last"
rm -r "$dir"
echo "$rounds rounds, $last lines"
echo ok
