"""Invented names of people, streets and companies, from short lists of ordinary words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from demo.columns import Integers, join, pick

SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈"
    "姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严戴"
)
COMPOUND_SURNAMES = ("欧阳", "上官", "司徒", "诸葛")
GIVEN = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂英华玉兰红梅建国志文海波晨宇轩浩然子涵欣怡雨桐梓睿思远嘉诚佳琪"
    "婷雪松竹青云飞鹏程光辉永康德仁义信安宁瑞祥春秋冬阳月星辰语诗书画琴棋雅清雯岚峰岩川泽润"
)
ETHNICITIES = ("汉族", "回族", "满族", "壮族", "苗族", "维吾尔族", "土家族", "彝族", "蒙古族", "藏族", "畲族", "朝鲜族")
ETHNICITY_SHARES = (0.962, 0.011, 0.005, 0.004, 0.004, 0.003, 0.003, 0.002, 0.002, 0.001, 0.002, 0.001)

ROADS = ("和平", "新华", "人民", "解放", "建设", "长乐", "清水", "梅园", "桃源", "文昌", "学府", "滨河", "东湖", "松涛")
ROAD_KINDS = ("路", "街", "支路", "大道")

BRANDS = "锦恒泰瑞丰盛达信诚安康宏鑫源博远腾跃辰晖佑嘉禾沐泽润启元合众联创优易云科智海蓝星阳光绿野百川千禾"
TRADES = (
    "食品",
    "餐饮管理",
    "贸易",
    "电子商务",
    "网络科技",
    "信息技术",
    "建筑工程",
    "装饰工程",
    "物流",
    "机械设备",
    "纺织品",
    "服饰",
    "文化传播",
    "企业管理咨询",
    "医疗器械",
    "新材料",
    "汽车配件",
    "农业科技",
    "环保科技",
    "物业管理",
)
FORMS = ("有限公司", "有限责任公司", "股份有限公司", "合伙企业（有限合伙）")
FORM_SHARES = (0.88, 0.06, 0.02, 0.04)

_ALL_SURNAMES = (*SURNAMES, *COMPOUND_SURNAMES)
# Common names first: the lists are ordered by how often a name is met, and so are the weights.
_WEIGHTS = 1.0 / (np.arange(len(_ALL_SURNAMES)) + 8.0)
_SHARES = _WEIGHTS / _WEIGHTS.sum()


def surnames(rng: np.random.Generator, count: int) -> Integers:
    """``count`` surnames as indices, common ones more often."""
    return rng.choice(len(_ALL_SURNAMES), size=count, p=_SHARES)


def people(rng: np.random.Generator, surname: Integers) -> pa.StringArray:
    """Full names for the given surnames; one in seven has a given name of one character."""
    count = len(surname)
    second = rng.integers(0, len(GIVEN), count)
    single = rng.random(count) < 1 / 7
    tail = pick((*GIVEN, ""), np.where(single, len(GIVEN), second))
    return join(pick(_ALL_SURNAMES, surname), pick(tuple(GIVEN), rng.integers(0, len(GIVEN), count)), tail)


def ethnicities(rng: np.random.Generator, count: int) -> pa.StringArray:
    return pick(ETHNICITIES, rng.choice(len(ETHNICITIES), size=count, p=ETHNICITY_SHARES))


def addresses(rng: np.random.Generator, districts: pa.StringArray) -> pa.StringArray:
    """A street address in each district."""
    count = len(districts)
    numbers = pa.array(rng.integers(1, 1999, count)).cast(pa.string())
    rooms = pa.array(rng.integers(1, 25, count) * 100 + rng.integers(1, 7, count)).cast(pa.string())
    road = pick(ROADS, rng.integers(0, len(ROADS), count))
    kind = pick(ROAD_KINDS, rng.choice(len(ROAD_KINDS), size=count, p=(0.7, 0.15, 0.1, 0.05)))
    return join(districts, road, kind, numbers, "号", rooms, "室")


def companies(rng: np.random.Generator, places: pa.StringArray) -> pa.StringArray:
    """A company name for each short place name."""
    count = len(places)
    first, second, third = (pick(tuple(BRANDS), rng.integers(0, len(BRANDS), count)) for _ in range(3))
    trade = pick(TRADES, rng.integers(0, len(TRADES), count))
    form = pick(FORMS, rng.choice(len(FORMS), size=count, p=FORM_SHARES))
    return join(places, first, second, third, trade, form)
