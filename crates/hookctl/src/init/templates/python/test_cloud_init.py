import unittest

from hook import hook
from kubevirt_hook import Refused
from kubevirt_testing import assert_idempotent

DATA = {"DataSource": "noCloud", "UserData": "#cloud-config\nhostname: vm1\n"}


def vmi(timezone):
    return {"metadata": {"annotations": {"example.org/timezone": timezone}}}


class TimezoneTest(unittest.TestCase):
    def test_the_time_zone_is_added_and_stays(self):
        user_data = assert_idempotent(hook, vmi("Europe/Lisbon"), DATA)["UserData"]
        self.assertIn("hostname: vm1\n", user_data)
        self.assertIn('timezone: "Europe/Lisbon"\n', user_data)

    def test_without_the_annotation_nothing_changes(self):
        self.assertIsNone(hook.invoke("preCloudInitIso", {"metadata": {}}, DATA))

    def test_what_is_not_a_name_is_refused(self):
        with self.assertRaises(Refused):
            hook.invoke("preCloudInitIso", vmi('"\nrunc'), DATA)


if __name__ == "__main__":
    unittest.main()
