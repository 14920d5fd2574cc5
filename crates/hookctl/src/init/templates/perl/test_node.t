use strict;
use warnings;
use FindBin;
use Test::More;
require "$FindBin::RealBin/../hook.pl";

sub vmi { return { metadata => { annotations => { 'example.org/rack' => $_[0] } } } }

ok eval { check_rack(vmi('rack1'), 'rack1-node01'); 1 }, 'a VM starts in its rack';
ok eval { check_rack({ metadata => {} }, 'rack2-node01'); 1 }, 'without the annotation it starts anywhere';
is eval { check_rack(vmi('rack1'), 'rack10-node01'); 1 }, undef, 'in another rack';
is $@->{code}, -32000, 'it is refused';

done_testing;
