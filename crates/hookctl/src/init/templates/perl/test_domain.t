use strict;
use warnings;
use FindBin;
use Test::More;
require "$FindBin::RealBin/../hook.pl";

my $domain = '<domain><sysinfo type="smbios"><chassis/></sysinfo></domain>';
sub vmi { return { metadata => { annotations => { 'example.org/asset-tag' => $_[0] } } } }

my $tagged = set_asset_tag(vmi('R&D'), $domain);
is $tagged, $domain =~ s{<chassis/>}{<chassis><entry name="asset">R&#38;D</entry></chassis>}r,
    'the tag is set';
is set_asset_tag(vmi('R&D'), $tagged), $tagged, 'and stays';
is set_asset_tag({ metadata => {} }, $domain), undef, 'without the annotation nothing changes';
is eval { set_asset_tag(vmi("a\tb"), $domain); 1 }, undef, 'a control character';
is $@->{code}, -32000, 'is refused';

done_testing;
