import unittest

from hook import hook
from kubevirt_hook import Refused
from kubevirt_testing import assert_idempotent

DOMAIN = '<domain><sysinfo type="smbios"><chassis/></sysinfo></domain>'
TAGGED = DOMAIN.replace("<chassis/>", '<chassis><entry name="asset">R&amp;D</entry></chassis>')


def vmi(tag):
    return {"metadata": {"annotations": {"example.org/asset-tag": tag}}}


class AssetTagTest(unittest.TestCase):
    def test_the_tag_is_set_and_stays(self):
        self.assertEqual(assert_idempotent(hook, vmi("R&D"), DOMAIN), TAGGED)

    def test_without_the_annotation_nothing_changes(self):
        self.assertIsNone(hook.invoke("onDefineDomain", {"metadata": {}}, DOMAIN))

    def test_a_control_character_is_refused(self):
        with self.assertRaises(Refused):
            hook.invoke("onDefineDomain", vmi("a\tb"), DOMAIN)


if __name__ == "__main__":
    unittest.main()
