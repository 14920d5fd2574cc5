use strict;
use warnings;
use FindBin;
use Test::More;
require "$FindBin::RealBin/../hook.pl";

sub vmi { return { metadata => { annotations => { 'example.org/hostname' => $_[0] } } } }
sub data { return { DataSource => 'noCloud', NoCloudMetaData => { 'local-hostname' => $_[0] } } }

is_deeply set_hostname(vmi('web-1'), data('vm1')), data('web-1'), 'the host name is set';
is_deeply set_hostname(vmi('web-1'), data('web-1')), data('web-1'), 'and stays';
is set_hostname({ metadata => {} }, data('vm1')), undef, 'without the annotation nothing changes';
is eval { set_hostname(vmi('web 1'), data('vm1')); 1 }, undef, 'what is not a name';
is $@->{code}, -32000, 'is refused';

done_testing;
