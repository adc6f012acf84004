import pathlib
import re

from setuptools import find_packages
from setuptools import setup

FOLDER = pathlib.Path(__file__).parent
# A package index shows no other files, so that links name them in words.
DESCRIPTION = re.sub(
    r"!?\[([^\]]+)\]\((?!https?:)([^)#]+)[^)]*\)",
    r"\1 (\2)",
    (FOLDER / "README.md").read_text(encoding="utf-8"),
)
VERSION = re.search(
    r'__version__ = "(.+)"',
    (FOLDER / "atent_keras" / "version.py").read_text(encoding="utf-8"),
)[1]

setup(
    name="atent_keras",
    version=VERSION,
    description=(
        "Adversarially robust training in Keras 3 by entropic regularization "
        "(ATENT)"
    ),
    long_description=DESCRIPTION,
    long_description_content_type="text/markdown",
    author="The atent_keras developers",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    project_urls={"Paper": "https://arxiv.org/abs/2008.12338"},
    packages=find_packages(include=["atent_keras", "atent_keras.*"]),
    include_package_data=True,  # what MANIFEST.in names
    python_requires=">=3.10",
    install_requires=[
        "absl-py",
        "importlib_resources",  # tensorflow-datasets does not declare it
        "keras>=3.8",
        "numpy",
        "scipy>=1.10",
        "tensorflow>=2.18",
        "tensorflow-datasets>=4.9.7",
        "typing_extensions",
    ],
    extras_require={
        "benchmarks": ["adversarial-robustness-toolbox>=1.20"],
        "dev": ["atent_keras[test]", "pre-commit"],
        "docs": [
            "ipykernel",
            "jupytext",
            "matplotlib>=3.8",
            "mkdocs>=1.6,<2",
            "mkdocs-jupyter>=0.26",
            "mkdocs-material>=9.6",
            "mkdocstrings[python]>=1.0",
            "scikit-learn>=1.4",
        ],
        "examples": [
            "matplotlib>=3.8",
            "scikit-learn>=1.4",
            "tensorboard>=2.18",
        ],
        "formats": [
            "ai-edge-litert",
            "onnxruntime",
            "openvino",
            "tf2onnx",
        ],
        "test": [
            "build>=1.2",
            "matplotlib>=3.8",
            "mypy==2.4.1",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "scikit-learn>=1.4",
            "setuptools>=77",
            "tensorboard>=2.18",
            "twine>=6.1",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Security",
        "Typing :: Typed",
    ],
    keywords=[
        "adversarial-attacks",
        "adversarial-robustness",
        "adversarial-training",
        "autoattack",
        "keras",
        "langevin-dynamics",
        "randomized-smoothing",
        "tensorflow",
    ],
)
