"""Which folders and files of each data set are expected where, as trees to print; ``ROOT`` is what --root gives."""

from datasets.synthetic import SyntheticSize

_MARKET_PARTS = """\
      bounding_box_train/
        0002_c1s1_000451_03.jpg      person 2, camera 1
      query/
        0001_c1s1_001051_00.jpg
      bounding_box_test/
        0001_c2s1_000301_00.jpg      person 1; 0 are distractors, -1 is junk and left out
"""

_OWN = """\
    manifest.csv                     columns path, pid, camid, split (train, query or gallery); names are any text
  or, without that file,
    train/
      anna/                          person
        door_0001.jpg                camera, up to the first _; any name here where only training is wanted
    query/
      ben/
        door_0001.jpg
    gallery/
      ben/
        yard_0001.jpg
"""

_RANDOM_SPLITS = "    random_splits.json               written on first use: ten splits, the same on every machine\n"

LAYOUTS = {
    "market1501": f"""\
ROOT/
  market1501/
    Market-1501-v15.09.15/           or its three folders in market1501 itself
{_MARKET_PARTS}      images/                        with market1501.use_500k_distractors alone
        0000_c1s1_000001_00.jpg
""",
    "dukemtmcreid": """\
ROOT/
  dukemtmc-reid/
    DukeMTMC-reID/
      bounding_box_train/
        0001_c2_f0046182.jpg         person 1, camera 2
      query/
        0005_c2_f0046985.jpg
      bounding_box_test/
        0005_c1_f0060421.jpg
""",
    "msmt17": """\
ROOT/
  msmt17/
    MSMT17_V1/                       or MSMT17_V2, with mask_train_v2 and mask_test_v2
      list_train.txt                 lines: path below train, blank, person, as in 0000/0000_000_01_….jpg 0
      list_val.txt
      list_query.txt                 the same, with paths below test
      list_gallery.txt
      train/
        0000/
          0000_000_01_0303morning_0015_0.jpg   person 0, image 0, camera 1
      test/
        0000/
          0000_000_03_0303morning_0008_0.jpg
""",
    "cuhk03": """\
ROOT/
  cuhk03/
    cuhk03_release/
      cuhk-03.mat                    images and classic splits
    cuhk03_new_protocol_config_detected.mat
    cuhk03_new_protocol_config_labeled.mat     with cuhk03.labeled_images
    images_detected/                 or images_labeled: extracted on first use
      1_001_1_01.png                 pair 1, person 1, view 1, image 1
""",
    "cuhk01": f"""\
ROOT/
  cuhk01/
    campus/
      0001001.png                    person 1, image 1: 1 and 2 are of camera 1, 3 and 4 of camera 2
{_RANDOM_SPLITS}""",
    "cuhk02": "ROOT/\n  cuhk02/\n    Dataset/\n"
    + "".join(
        f"      P{pair}/\n        cam1/\n          001_108001.png             person 1\n"
        "        cam2/\n          001_208001.png\n"
        for pair in range(1, 6)
    ),
    "cuhksysu": """\
ROOT/
  cuhksysu/
    cropped_images/
      p11422_s16929_1.jpg            person 11422, scene 16929; for training only
""",
    "viper": f"""\
ROOT/
  viper/
    VIPeR/
      cam_a/
        000_45.bmp                   person 0, angle 45; each person once in each folder
      cam_b/
        000_90.bmp
{_RANDOM_SPLITS}""",
    "grid": """\
ROOT/
  grid/
    underground_reid/
      features_and_partitions.mat    the ten splits
      probe/
        0001_1_25004_107_32_106_221.jpeg       person 1, camera 1
      gallery/
        0000_8_25067_126_17_95_223.jpeg        person 0: distractors
""",
    "prid": f"""\
ROOT/
  prid2011/
    prid_2011/
      single_shot/
        cam_a/
          person_0001.png            persons 1 to 200 are in both folders
        cam_b/
          person_0001.png
{_RANDOM_SPLITS}""",
    "ilids": f"""\
ROOT/
  ilids/
    i-LIDS_Pedestrian/
      Persons/
        0001001.jpg                  person 1, sequence 1, which counts as a camera
{_RANDOM_SPLITS}""",
    "sensereid": """\
ROOT/
  sensereid/
    SenseReID/
      test_probe/
        00001_0.jpg                  person 1, camera 0; for testing only
      test_gallery/
        00001_1.jpg
""",
    "university1652": """\
ROOT/
  university1652/
    University-Release/
      train/
        drone/                       every view here: drone, google, satellite, street
          0839/                      building 839
            image-01.jpeg
        satellite/
          0839/
            0839.jpg
      test/
        query_drone/
          0001/
            image-01.jpeg
        gallery_satellite/
          0001/
            0001.jpg
""",
    "folder": f"""\
ROOT/
  folder/                            or ROOT itself
{_OWN}""",
}
DRAWN = f"""\
ROOT/
  synthetic/                         drawn on first use, or by python -m tools.make_synthetic
    {SyntheticSize().folder_name}/     one folder for each choice of sizes
      a/                             domain, in Market-1501's layout
        files.csv                    the drawn files, with sizes and checksums
        bounding_box_train/
        query/
        bounding_box_test/
"""


def format_layout(name: str) -> str:
    """Returns the tree of the folders and files that a data set consists of.

    Args:
        name: A valid name, ``folder:NAME`` too.
    """
    if name.startswith("synthetic"):
        return DRAWN
    if name.startswith("folder:"):
        return f"ROOT/\n  {name.removeprefix('folder:')}/\n{_OWN}"
    return LAYOUTS[name]
