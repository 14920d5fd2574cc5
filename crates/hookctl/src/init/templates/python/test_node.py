import unittest

from hook import hook
from kubevirt_hook import Refused


def vmi(rack):
    return {"metadata": {"annotations": {"example.org/rack": rack}}}


class RackTest(unittest.TestCase):
    def test_a_vm_starts_in_its_rack(self):
        hook.invoke("preVMStart", vmi("rack1"), "rack1-node01")

    def test_without_the_annotation_a_vm_starts_anywhere(self):
        hook.invoke("preVMStart", {"metadata": {}}, "rack2-node01")

    def test_in_another_rack_it_is_refused(self):
        with self.assertRaises(Refused):
            hook.invoke("preVMStart", vmi("rack1"), "rack10-node01")


if __name__ == "__main__":
    unittest.main()
